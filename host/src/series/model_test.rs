//! The table against a plain model of it, over random runs: what is described, used, forgotten and
//! left to expire, on instances that come and go.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::{counter, run, seen, table};
use super::*;

const KEEP: Millis = 600_000;

/// What is known of a name: its last reading and when it was used.
#[derive(Default)]
struct Known {
    reading: Option<(Millis, f64)>,
    used: Millis,
    handle: Option<u32>,
}

#[derive(Default)]
struct Model {
    names: HashMap<String, Known>,
    next: u32,
}

impl Model {
    fn expire(&mut self, now: Millis) -> Vec<u32> {
        let mut expired = Vec::new();
        self.names.retain(|_, known| {
            let stays = known.used + KEEP > now;
            expired.extend(known.handle.filter(|_| !stays));
            stays
        });
        expired.sort_unstable();
        expired
    }

    fn describe(&mut self, name: String, due: Millis) -> u32 {
        let known = self.names.entry(name).or_default();
        known.used = due;
        self.next += 1;
        *known.handle.insert(self.next - 1)
    }

    fn read(&mut self, handle: u32, due: Millis, value: f64) -> Option<String> {
        let (name, known) = self.names.iter_mut().find(|(_, known)| known.handle == Some(handle))?;
        known.used = due;
        let (at, before) = known.reading.unwrap_or((due, f64::MAX));
        if at == due && known.reading.is_some() && value >= before {
            return None;
        }
        known.reading = Some((due, value));
        let is_rate = value >= before && at < due;
        is_rate.then(|| format!("{name} {}", (value - before) / ((due - at) as f64 / 1000.0)))
    }

    fn forget(&mut self, handle: u32) {
        self.names.retain(|_, known| known.handle != Some(handle));
    }

    fn new_instance(&mut self) {
        self.next = 0;
        self.names.values_mut().for_each(|known| known.handle = None);
    }
}

#[test]
fn table_does_what_a_plain_model_of_it_does() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut table, mut model, mut due) = (table(), Model::default(), 1_000_000);
        for _ in 0..300 {
            due += if rng.random_bool(0.02) {
                rng.random_range(0..2 * KEEP)
            } else {
                rng.random_range(1..60_000)
            };
            if rng.random_bool(0.05) {
                table.new_instance();
                model.new_instance();
            }
            let mut expired = table.expire(due, Duration::from_secs(1)).series;
            expired.sort_unstable();
            assert_eq!(expired, model.expire(due), "seed {seed}");

            let names = (0..rng.random_range(0..4)).map(|_| format!("n{}", rng.random_range(0..30)));
            let described: Vec<_> =
                names.map(|name| counter(model.describe(name.clone(), due), &name)).collect();
            let value =
                |rng: &mut StdRng| (rng.random_range(0..model.next + 2), f64::from(rng.random_range(0..50)));
            let values: Vec<_> = (0..rng.random_range(0..20)).map(|_| value(&mut rng)).collect();
            let forget: Vec<u32> =
                (0..rng.random_range(0..2)).map(|_| rng.random_range(0..model.next + 2)).collect();

            let expected: Vec<String> =
                values.iter().filter_map(|&(handle, value)| model.read(handle, due, value)).collect();
            forget.iter().for_each(|&handle| model.forget(handle));
            let applied = table.apply(due, Collected { forget, ..run(described, &values) });
            assert_eq!(seen(&applied.unwrap()), expected, "seed {seed}");
            assert_eq!(table.len(), model.names.len(), "seed {seed}");
        }
    }
}
