//! `wasi:clocks` over the agent's own clock, so that a guest's time is virtual where the agent's is.

use std::time::Duration;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::store::Guest;
use crate::clock::Clock;

/// Names [`ClockView`] for the linker.
pub(super) struct Clocks;

impl HasData for Clocks {
    type Data<'a> = ClockView<'a>;
}

/// What clock functions may touch.
pub(super) struct ClockView<'a> {
    clock: std::sync::Arc<dyn Clock>,
    table: &'a mut ResourceTable,
}

impl Guest {
    pub(super) fn clock_view(&mut self) -> ClockView<'_> {
        ClockView { clock: self.context.clock.clone(), table: &mut self.table }
    }
}

impl wall_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let millis = self.clock.wall_ms();
        Ok(wall_clock::Datetime {
            seconds: millis / 1000,
            // Below a thousand million by construction.
            nanoseconds: (millis % 1000) as u32 * 1_000_000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(nanos(self.clock.monotonic()))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let until = Duration::from_nanos(when);
        let sleep = self.table.push(Sleep { clock: self.clock.clone(), until, yielded: false })?;
        subscribe(self.table, sleep)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = nanos(self.clock.monotonic());
        self.subscribe_instant(now.saturating_add(duration))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Sleep {
    clock: std::sync::Arc<dyn Clock>,
    until: Duration,
    yielded: bool,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        if self.until > self.clock.monotonic() {
            self.clock.sleep_until(self.until).await;
        } else if !self.yielded {
            // A guest that polls in a loop would starve the I/O driver.
            self.yielded = true;
            tokio::task::yield_now().await;
        }
    }
}
