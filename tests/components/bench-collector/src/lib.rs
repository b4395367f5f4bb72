//! A collector whose work is known, for the benchmarks.
//!
//! | mode | a run brings |
//! |---|---|
//! | gauges | `count` gauges, the same in each run |
//! | names | one gauge; within the time from `from` until `until` also `count` that never were before |
//! | hoard, trap, spin | what `gauges` brings; the second run of an instance does not come back |

use std::hint::black_box;
use std::time::Instant;

use kimberlite_plugin_sdk::{Collector, Result, Run, Series, Settings, export_collector};

struct Bench {
    mode: Mode,
    prefix: String,
    gauges: Vec<Series>,
    count: u64,
    from: u64,
    until: u64,
    room: usize,
    runs: u64,
    hoard: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Gauges,
    Names,
    Hoard,
    Trap,
    Spin,
}

impl Collector for Bench {
    fn new(settings: &Settings) -> Result<Self> {
        let mode = match settings.text("mode").unwrap_or("gauges") {
            "names" => Mode::Names,
            "hoard" => Mode::Hoard,
            "trap" => Mode::Trap,
            "spin" => Mode::Spin,
            _ => Mode::Gauges,
        };
        let prefix = settings.text("prefix").unwrap_or("bench").to_owned();
        let count: u64 = settings.get("count")?.unwrap_or(100);
        let kept = if mode == Mode::Names { 1 } else { count };
        let gauges = (0..kept).map(|i| Series::gauge(format!("{prefix}.gauge{i:03}"))).collect();
        Ok(Self {
            mode,
            prefix,
            gauges,
            count,
            from: settings.get("from")?.unwrap_or(0),
            until: settings.get("until")?.unwrap_or(0),
            room: settings.get("room")?.unwrap_or(0),
            runs: 0,
            hoard: Vec::new(),
        })
    }

    fn collect(&mut self, run: &mut Run) -> Result<()> {
        self.runs += 1;
        match self.mode {
            Mode::Gauges => {}
            Mode::Names => self.new_names(run),
            _ if self.runs < 2 => {}
            Mode::Hoard => self.hoard(),
            Mode::Trap => panic!("the second run is the last"),
            Mode::Spin => spin(),
        }
        for (i, series) in (0_u64..).zip(&self.gauges) {
            run.record(series, self.runs + i);
        }
        Ok(())
    }
}

impl Bench {
    fn new_names(&self, run: &mut Run) {
        let due = run.due();
        if (self.from..self.until).contains(&due) {
            for i in 0..self.count {
                run.gauge(format!("{}.container-{due}-{i:05}.memory", self.prefix), i);
            }
        }
    }

    /// Fills the memory that it has, looks at the clock (the benchmark's own, which remembers when
    /// that was), and asks for more than it will get.
    fn hoard(&mut self) {
        const PIECE: usize = 256 << 10;
        self.hoard.extend((0..self.room / PIECE).map(|_| black_box(vec![1; PIECE])));
        black_box(Instant::now());
        self.hoard.push(black_box(vec![1; 1 << 30]));
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

export_collector!(Bench);
