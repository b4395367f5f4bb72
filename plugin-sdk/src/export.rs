//! How the agent calls an author's type: what the export macros expand to.
//!
//! One instance per component, in a thread-local (components have one thread). The macros expand in
//! the author's crate; all that can lives here.

/// Puts the manifest into the component. It is read natively, too, so that a missing one is an error
/// wherever the crate is built.
#[doc(hidden)]
#[macro_export]
macro_rules! __embed {
    ($manifest:literal) => {
        const _: () = {
            const MANIFEST: &[u8] =
                ::core::include_bytes!(::core::concat!(::core::env!("CARGO_MANIFEST_DIR"), "/", $manifest));

            #[cfg(target_arch = "wasm32")]
            #[used]
            #[unsafe(link_section = "kimberlite:manifest")]
            static SECTION: [u8; MANIFEST.len()] = match MANIFEST.first_chunk() {
                Some(manifest) => *manifest,
                None => ::core::unreachable!(),
            };
        };
    };
}

#[doc(hidden)]
#[cfg(feature = "count-allocations")]
#[macro_export]
macro_rules! __export_heap {
    () => {
        type Heap = $crate::export::Heap;
        $crate::bindings::diagnostics::__export_diagnostics!(Heap with_types_in $crate::bindings::diagnostics);
    };
}

#[doc(hidden)]
#[cfg(not(feature = "count-allocations"))]
#[macro_export]
macro_rules! __export_heap {
    () => {};
}

/// Makes the crate a collector: `export_collector!(Uptime);`, once, at the top level of `lib.rs`.
///
/// The crate's `plugin.toml` becomes part of the component; another file is named by
/// `export_collector!(Uptime, manifest = "uptime.toml")`, from the folder of `Cargo.toml`.
#[macro_export]
#[rustfmt::skip] // it loses count of the braces
macro_rules! export_collector {
    ($type:ty $(,)?) => { $crate::export_collector!($type, manifest = "plugin.toml"); };
    ($type:ty, manifest = $manifest:literal $(,)?) => {
        $crate::__embed!($manifest);

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::export::is_collector::<$type>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::collector::exports::kimberlite::plugin::collector as exported;

            struct Plugin;

            impl exported::Guest for Plugin {
                fn init(
                    settings: ::std::vec::Vec<exported::Setting>,
                ) -> ::core::result::Result<(), exported::InitError> {
                    $crate::export::init_collector::<$type>(settings)
                }

                fn collect(
                    tick: exported::Tick,
                ) -> ::core::result::Result<exported::Batch, exported::CollectError> {
                    $crate::export::collect(tick)
                }
            }

            $crate::bindings::collector::__export_collector!(Plugin with_types_in $crate::bindings::collector);
            $crate::__export_heap!();
        };
    };
}

/// Makes the crate a handler: `export_handler!(Stdout);`, once, at the top level of `lib.rs`.
///
/// The crate's `plugin.toml` becomes part of the component; another file is named by
/// `export_handler!(Stdout, manifest = "stdout.toml")`, from the folder of `Cargo.toml`.
#[macro_export]
#[rustfmt::skip] // it loses count of the braces
macro_rules! export_handler {
    ($type:ty $(,)?) => {
        $crate::export_handler!($type, manifest = "plugin.toml");
    };
    ($type:ty, manifest = $manifest:literal $(,)?) => {
        $crate::__embed!($manifest);

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::export::is_handler::<$type>();

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::handler::exports::kimberlite::plugin::handler as exported;

            struct Plugin;

            impl exported::Guest for Plugin {
                fn init(
                    settings: ::std::vec::Vec<exported::Setting>,
                ) -> ::core::result::Result<(), exported::InitError> {
                    $crate::export::init_handler::<$type>(settings)
                }

                fn handle(batch: exported::Batch) -> exported::Answer {
                    $crate::export::handle(batch)
                }
            }

            $crate::bindings::handler::__export_handler!(Plugin with_types_in $crate::bindings::handler);
            $crate::__export_heap!();
        };
    };
}

/// What the macro checks where it exports nothing.
#[cfg(not(target_arch = "wasm32"))]
pub const fn is_collector<T: crate::Collector>() {}

/// What the macro checks where it exports nothing.
#[cfg(not(target_arch = "wasm32"))]
pub const fn is_handler<T: crate::Handler>() {}

#[cfg(target_arch = "wasm32")]
pub use guest::*;

#[cfg(target_arch = "wasm32")]
mod guest {
    use std::cell::RefCell;

    #[cfg(feature = "count-allocations")]
    use crate::alloc::{HEAP, Survivor};
    use crate::batch::Batch;
    use crate::bindings::collector::exports::kimberlite::plugin::collector;
    #[cfg(feature = "count-allocations")]
    use crate::bindings::diagnostics::exports::kimberlite::plugin::diagnostics;
    use crate::bindings::handler::exports::kimberlite::plugin::handler;
    use crate::bindings::imports::kimberlite::plugin::types::{InitError, Setting};
    use crate::collector::{Collector, Instance};
    use crate::error::Result;
    use crate::handler::{HandleError, Handler, answer};
    use crate::log;
    use crate::settings::Settings;

    /// The type with its type forgotten, so that one thread-local serves every author's.
    trait AnyCollector {
        fn collect(&mut self, tick: collector::Tick) -> Result<collector::Batch>;
    }

    impl<T: Collector> AnyCollector for Instance<T> {
        fn collect(&mut self, tick: collector::Tick) -> Result<collector::Batch> {
            Instance::collect(self, tick)
        }
    }

    trait AnyHandler {
        fn handle(&mut self, batch: &Batch) -> handler::Answer;
    }

    impl<T: Handler> AnyHandler for T {
        fn handle(&mut self, batch: &Batch) -> handler::Answer {
            answer(Handler::handle(self, batch))
        }
    }

    thread_local! {
        static COLLECTOR: RefCell<Option<Box<dyn AnyCollector>>> = const { RefCell::new(None) };
        static HANDLER: RefCell<Option<Box<dyn AnyHandler>>> = const { RefCell::new(None) };
    }

    const NOT_INITIALISED: &str = "called before `init` has succeeded";

    pub fn init_collector<T: Collector + 'static>(settings: Vec<Setting>) -> Result<(), InitError> {
        log_panics();
        let made = Instance::<T>::new(&Settings::from_wit(settings));
        let made = made.map(|instance| COLLECTOR.set(Some(Box::new(instance))));
        end_call();
        Ok(made?)
    }

    pub fn collect(tick: collector::Tick) -> Result<collector::Batch, collector::CollectError> {
        let batch = COLLECTOR.with_borrow_mut(|instance| match instance {
            Some(instance) => Ok(instance.collect(tick)?),
            None => Err(collector::CollectError::Failed(NOT_INITIALISED.to_owned())),
        });
        end_call();
        batch
    }

    pub fn init_handler<T: Handler + 'static>(settings: Vec<Setting>) -> Result<(), InitError> {
        log_panics();
        let made = T::new(&Settings::from_wit(settings));
        let made = made.map(|instance| HANDLER.set(Some(Box::new(instance))));
        end_call();
        Ok(made?)
    }

    pub fn handle(batch: handler::Batch) -> handler::Answer {
        let answer = HANDLER.with_borrow_mut(|instance| match instance {
            Some(instance) => instance.handle(&Batch::new(batch)),
            None => answer(Err(HandleError::retry(NOT_INITIALISED))),
        });
        end_call();
        answer
    }

    #[cfg(feature = "count-allocations")]
    fn end_call() {
        HEAP.end_call();
    }

    #[cfg(not(feature = "count-allocations"))]
    fn end_call() {}

    #[cfg(feature = "count-allocations")]
    #[derive(Debug)]
    pub struct Heap;

    #[cfg(feature = "count-allocations")]
    impl diagnostics::Guest for Heap {
        fn heap_stats() -> diagnostics::Heap {
            let crate::alloc::Heap { live_bytes, live_blocks, peak_bytes, allocations } = HEAP.heap();
            diagnostics::Heap { live_bytes, live_blocks, peak_bytes, allocations }
        }

        fn track(on: bool) {
            HEAP.track(on);
        }

        fn survivors(limit: u32) -> diagnostics::SurvivorsReport {
            let (survivors, untracked_bytes) = HEAP.survivors(limit as usize);
            let group = |Survivor { size, born, count, preview }: Survivor| diagnostics::Survivor {
                size: size as u64,
                born,
                count,
                preview,
            };
            let groups = survivors.into_iter().map(group).collect();
            diagnostics::SurvivorsReport { groups, untracked_bytes }
        }
    }

    /// A panic ends the instance; std would print four lines where one says it.
    fn log_panics() {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("(no message)");
            match panic.location() {
                Some(at) => {
                    let (file, line) = (at.file(), at.line());
                    log::write(log::Severity::Error, format_args!("panicked at {file}:{line}: {message}"));
                }
                None => log::write(log::Severity::Error, format_args!("panicked: {message}")),
            }
        }));
    }
}
