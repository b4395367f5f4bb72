//! A running plugin: one store, one task, one call at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use wasmtime::{Store, UpdateDeadline};

use super::bindings::exports::kimberlite::plugin::{collector, diagnostics, handler};
use super::bindings::kimberlite::plugin::types;
use super::convert;
use super::engine::{Inner, Plugin};
use super::failure::{Failure, classify};
use super::limits::{Meter, hostcall_fuel};
use super::store::{Context, Guest};
use crate::collected::Collected;
use crate::config::manifest::PluginKind;
use crate::config::settings::Setting;
use crate::delivery_policy::Answer;
use crate::outgoing::Outgoing;
use crate::reason::ReasonCode;
use crate::sample::Millis;

/// A fresh instance starts in less.
const SUCCESSION: Duration = Duration::from_millis(10);

/// Why a collector is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickReason {
    Due,
    Probe,
}

/// The moment of one run.
#[derive(Debug, Clone)]
pub struct Tick {
    pub due: Millis,
    pub now: Millis,
    /// Milliseconds since the due time of the last run that ended well.
    pub elapsed: Option<u64>,
    pub reason: TickReason,
    /// Handles that are void from now on.
    pub expired: Vec<u32>,
    pub expired_elements: Vec<u32>,
    /// Runs with one number share one reading of the machine.
    pub slot: u64,
    /// Wall time the run may take, at most that of the limits.
    pub timeout: Duration,
}

/// Why a run brought nothing although the plugin is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectError {
    /// There is nothing to measure here.
    Absent(String),
    Failed(String),
}

/// Why a plugin refused to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    #[error("setting `{0}`: {1}")]
    Setting(String, String),
    #[error("{0}")]
    Failed(String),
}

/// Why there is no instance.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// It said so itself.
    #[error("init: {0}")]
    Init(InitError),
    /// It was ended.
    #[error("{0}")]
    Failure(Failure),
}

impl StartError {
    /// The same as the end of a call.
    pub fn into_failure(self) -> Failure {
        match self {
            StartError::Init(error) => Failure::new(ReasonCode::InitFailed, error.to_string()),
            StartError::Failure(failure) => failure,
        }
    }
}

/// Bytes of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Linear memory now; it never shrinks while the instance lives.
    pub linear: usize,
    /// What the host holds for it.
    pub host: usize,
}

/// A plugin's own count of its heap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heap {
    pub live_bytes: u64,
    pub live_blocks: u64,
    pub peak_bytes: u64,
    pub allocations: u64,
}

enum Exported {
    Collector(collector::Guest),
    Handler(handler::Guest),
}

struct Alive {
    store: Store<Guest>,
    exported: Exported,
    diagnostics: Option<diagnostics::Guest>,
}

/// An instance. After a [`Failure`] it is gone, memory and all.
pub struct Instance {
    alive: Option<Alive>,
    engine: Arc<Inner>,
    context: Arc<Context>,
    cpu: Duration,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("plugin", &self.context.name).finish_non_exhaustive()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(alive) = self.alive.take() {
            bury(alive.store);
        }
    }
}

impl Plugin {
    /// A fresh instance, `init` included.
    pub async fn start(&self, context: Arc<Context>, settings: &[Setting]) -> Result<Instance, StartError> {
        let failed = |text: String| StartError::Failure(Failure::new(ReasonCode::InitFailed, text));
        let guest = Guest::new(context.clone()).map_err(failed)?;
        let engine = self.engine.inner.clone();
        let mut store = Store::new(&engine.wasmtime, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_max_component_handles(context.limits.handles);
        store.set_hostcall_fuel(hostcall_fuel(&context.limits));
        store.epoch_deadline_callback(|store| {
            if store.data().meter.is_over() {
                return Ok(UpdateDeadline::Interrupt);
            }
            // The built-in yield wakes itself at once, and a busy worker then looks at its timers
            // only every 61st time; this one waits behind the driver.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let (pre, wanted, kind) = (&self.pre, settings, self.exports.kind);
        let begun = call(&engine, store, 0, context.limits.timeout, async |store| {
            let instance = pre.instantiate_async(&mut *store).await?;
            let diagnostics = match diagnostics::GuestIndices::new(pre) {
                Ok(indices) => Some(indices.load(&mut *store, &instance)?),
                Err(_) => None,
            };
            let settings = convert::settings(wanted);
            let (exported, answer) = match kind {
                PluginKind::Collector => {
                    let guest = collector::GuestIndices::new(pre)?.load(&mut *store, &instance)?;
                    let answer = guest.call_init(&mut *store, &settings).await?;
                    (Exported::Collector(guest), answer)
                }
                PluginKind::Handler => {
                    let guest = handler::GuestIndices::new(pre)?.load(&mut *store, &instance)?;
                    let answer = guest.call_init(&mut *store, &settings).await?;
                    (Exported::Handler(guest), answer)
                }
            };
            Ok((exported, diagnostics, answer))
        })
        .await;
        match begun {
            (Some(store), Ok((exported, diagnostics, Ok(()))), cpu) => {
                commit(&context);
                Ok(Instance { alive: Some(Alive { store, exported, diagnostics }), engine, context, cpu })
            }
            (_, Ok((_, _, Err(error))), _) => {
                rollback(&context);
                Err(StartError::Init(match error {
                    types::InitError::Setting((key, text)) => InitError::Setting(key, text),
                    types::InitError::Failed(text) => InitError::Failed(text),
                }))
            }
            (_, Err(failure), _) => {
                rollback(&context);
                Err(StartError::Failure(failure))
            }
            (None, Ok(_), _) => Err(failed("the instance is gone".to_owned())),
        }
    }
}

impl Instance {
    /// One run of a collector.
    pub async fn collect(&mut self, tick: Tick) -> Result<Result<Collected, CollectError>, Failure> {
        let (slot, timeout) = (tick.slot, tick.timeout);
        let tick = convert::tick(tick);
        let answer = self
            .call(slot, timeout, async |exported, store| match exported {
                Exported::Collector(guest) => guest.call_collect(&mut *store, &tick).await,
                Exported::Handler(_) => Err(wasmtime::Error::msg("a handler cannot collect")),
            })
            .await?;
        if answer.is_ok() {
            commit(&self.context);
        } else {
            rollback(&self.context);
        }
        Ok(match answer {
            Ok(batch) => Ok(convert::collected(batch)),
            Err(collector::CollectError::Absent(text)) => Err(CollectError::Absent(text)),
            Err(collector::CollectError::Failed(text)) => Err(CollectError::Failed(text)),
        })
    }

    /// One batch for a handler.
    pub async fn handle(&mut self, batch: &Outgoing) -> Result<Answer, Failure> {
        let batch = convert::batch(batch);
        let answer = self
            .call(0, self.context.limits.timeout, async |exported, store| match exported {
                Exported::Handler(guest) => guest.call_handle(&mut *store, &batch).await,
                Exported::Collector(_) => Err(wasmtime::Error::msg("a collector cannot handle")),
            })
            .await?;
        commit(&self.context);
        Ok(convert::answer(answer))
    }

    /// The plugin's own count; none: it does not keep one, or could not say it in a second.
    pub async fn heap(&mut self) -> Option<Heap> {
        self.alive.as_ref()?.diagnostics.as_ref()?;
        let Alive { store, exported, diagnostics } = self.alive.take()?;
        let guest = diagnostics.as_ref()?;
        let asked = async |store: &mut Store<Guest>| guest.call_heap_stats(&mut *store).await;
        let (store, answer, _) = call(&self.engine, store, 0, Duration::from_secs(1), asked).await;
        self.alive = store.map(|store| Alive { store, exported, diagnostics });
        let heap = answer.ok()?;
        Some(Heap {
            live_bytes: heap.live_bytes,
            live_blocks: heap.live_blocks,
            peak_bytes: heap.peak_bytes,
            allocations: heap.allocations,
        })
    }

    /// Zero once the instance is gone.
    pub fn memory(&self) -> Memory {
        let Some(alive) = &self.alive else { return Memory::default() };
        let guest = alive.store.data();
        Memory { linear: guest.limiter.memory, host: guest.host_bytes.get() }
    }

    /// CPU time of all its calls.
    pub fn cpu(&self) -> Duration {
        self.cpu
    }

    async fn call<R>(
        &mut self,
        slot: u64,
        timeout: Duration,
        f: impl AsyncFnOnce(&Exported, &mut Store<Guest>) -> wasmtime::Result<R>,
    ) -> Result<R, Failure> {
        let Some(Alive { store, exported, diagnostics }) = self.alive.take() else {
            return Err(Failure::new(ReasonCode::Trap, "the instance is gone"));
        };
        let (store, answer, cpu) =
            call(&self.engine, store, slot, timeout, async |store| f(&exported, store).await).await;
        self.cpu += cpu;
        match (store, answer) {
            (Some(store), Ok(answer)) => {
                self.alive = Some(Alive { store, exported, diagnostics });
                Ok(answer)
            }
            (_, Err(failure)) => {
                rollback(&self.context);
                Err(failure)
            }
            (None, Ok(_)) => Err(Failure::new(ReasonCode::Trap, "the instance is gone")),
        }
    }
}

/// What the call wrote counts.
fn commit(context: &Context) {
    if let Ok(mut views) = context.views.lock() {
        views.commit();
    }
    if let Ok(mut state) = context.state.lock()
        && let Err(why) = state.commit()
    {
        tracing::warn!(plugin = context.name, why, "plugin state is not on disk");
    }
}

/// As if the call had not been.
fn rollback(context: &Context) {
    if let Ok(mut views) = context.views.lock() {
        views.rollback();
    }
    if let Ok(mut state) = context.state.lock() {
        state.rollback();
    }
}

/// Runs `f` on the store within the call's limits. The store comes back only if it can be used
/// again; otherwise it is ended here.
async fn call<R>(
    engine: &Inner,
    mut store: Store<Guest>,
    slot: u64,
    timeout: Duration,
    f: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<R>,
) -> (Option<Store<Guest>>, Result<R, Failure>, Duration) {
    store.data_mut().begin_call(slot, timeout);
    store.set_epoch_deadline(1);
    let meter = store.data().meter.clone();
    let ended = {
        let work = Metered { engine, meter: &meter, work: std::pin::pin!(f(&mut store)) };
        tokio::time::timeout_at(meter.deadline().into(), work).await
    };
    let last_words = store.data().end_call();
    let result = match ended {
        Ok(Ok(answer)) => match store.data().over_host_memory() {
            None => Ok(answer),
            Some(failure) => Err(failure),
        },
        Ok(Err(error)) => Err(classify(&error, last_words.as_deref())),
        Err(_) => Err(Failure {
            reason: ReasonCode::Deadline,
            text: "was waiting for the host at its deadline".to_owned(),
            in_host_call: true,
        }),
    };
    let cpu = meter.used();
    match result {
        Ok(answer) => (Some(store), Ok(answer), cpu),
        Err(failure) => {
            bury(store);
            (None, Err(failure), cpu)
        }
    }
}

/// Ends a store, and with it its connections. To unmap its memory takes milliseconds in which
/// nothing else can be mapped: not before its successor has had time to start, and on no thread
/// that others wait for.
fn bury(store: Store<Guest>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    drop(runtime.spawn(async move {
        tokio::time::sleep(SUCCESSION).await;
        drop(tokio::task::spawn_blocking(move || drop(store)));
    }));
}

/// Lets epochs pass and counts time while the guest is polled: a guest that waits for the host
/// costs neither.
struct Metered<'a, F> {
    engine: &'a Inner,
    meter: &'a Meter,
    work: Pin<&'a mut F>,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<F::Output> {
        let _running = self.engine.ticker.enter();
        self.meter.poll_begins();
        let polled = self.work.as_mut().poll(task);
        self.meter.poll_ends();
        polled
    }
}
