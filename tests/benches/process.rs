//! Another process (or this one) as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// By its id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

/// Counters at one instant.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    pub(crate) cpu: Duration,
    /// Context switches of each thread that lives, voluntary or not.
    pub(crate) switches: BTreeMap<String, u64>,
}

impl Process {
    pub(crate) fn myself() -> Self {
        Self(std::process::id())
    }

    pub(crate) fn counters(self) -> Counters {
        Counters { cpu: self.cpu(), switches: self.switches() }
    }

    /// To the nanosecond, of all threads that ever were; `/proc/PID/stat` counts in hundredths of seconds.
    fn cpu(self) -> Duration {
        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        let pid = i32::try_from(self.0).unwrap();
        // SAFETY: both are given places of the right type that live.
        let failed =
            unsafe { libc::clock_getcpuclockid(pid, &mut clock) | libc::clock_gettime(clock, &mut time) };
        assert_eq!(failed, 0, "process {pid} is gone");
        Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
    }

    fn switches(self) -> BTreeMap<String, u64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).unwrap();
        threads
            .filter_map(|thread| {
                let path = thread.ok()?.path();
                let status = fs::read_to_string(path.join("status")).ok()?;
                let switches = field(&status, "voluntary_ctxt_switches")?
                    + field(&status, "nonvoluntary_ctxt_switches")?;
                let name = status.lines().next()?.strip_prefix("Name:")?.trim();
                Some((format!("{name}/{}", path.file_name()?.to_str()?), switches))
            })
            .collect()
    }

    /// Bytes that are resident now.
    pub(crate) fn resident(self) -> f64 {
        self.memory("VmRSS")
    }

    /// Bytes by one line of its status: `VmHWM`, `RssAnon`, `RssFile`.
    pub(crate) fn memory(self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        field(&status, line).unwrap() as f64 * 1024.0
    }
}

impl Counters {
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        self.cpu - before.cpu
    }

    /// By thread, most first.
    pub(crate) fn switches_since(&self, before: &Self) -> Vec<(String, u64)> {
        let of = |(name, count): (&String, &u64)| {
            (name.clone(), count - before.switches.get(name).copied().unwrap_or(0))
        };
        let mut threads: Vec<_> = self.switches.iter().map(of).filter(|(_, count)| *count > 0).collect();
        threads.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        threads
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
