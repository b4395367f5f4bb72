//! Frozen as `wit/frozen/{collector,handler}-0.1.0.wasm`: what every other component is compared
//! with, and what every later agent must load. Built again only for a new version of the contract:
//!
//! ```text
//! cargo build --release --target wasm32-wasip2 --features collector
//! ```

#[cfg(feature = "collector")]
mod collector {
    wit_bindgen::generate!({ path: "../../../wit", world: "sdk-collector" });

    use exports::kimberlite::plugin::{collector, diagnostics};

    struct Contract;

    impl collector::Guest for Contract {
        fn init(_: Vec<collector::Setting>) -> Result<(), collector::InitError> {
            Ok(())
        }

        fn collect(_: collector::Tick) -> Result<collector::Batch, collector::CollectError> {
            Err(collector::CollectError::Absent("this component measures nothing".to_owned()))
        }
    }

    super::no_diagnostics!(diagnostics);
    export!(Contract);
}

#[cfg(feature = "handler")]
mod handler {
    wit_bindgen::generate!({ path: "../../../wit", world: "sdk-handler" });

    use exports::kimberlite::plugin::{diagnostics, handler};

    struct Contract;

    impl handler::Guest for Contract {
        fn init(_: Vec<handler::Setting>) -> Result<(), handler::InitError> {
            Ok(())
        }

        fn handle(_: handler::Batch) -> handler::Answer {
            handler::Answer::Delivered(handler::Receipt { unconfirmed: 0 })
        }
    }

    super::no_diagnostics!(diagnostics);
    export!(Contract);
}

/// Diagnostics of a component that keeps no count.
#[allow(unused_macros, reason = "used by whichever feature is on")]
macro_rules! no_diagnostics {
    ($module:ident) => {
        impl $module::Guest for Contract {
            fn heap_stats() -> $module::Heap {
                $module::Heap { live_bytes: 0, live_blocks: 0, peak_bytes: 0, allocations: 0 }
            }

            fn track(_: bool) {}

            fn survivors(_: u32) -> $module::SurvivorsReport {
                $module::SurvivorsReport { groups: Vec::new(), untracked_bytes: 0 }
            }
        }
    };
}
#[allow(unused_imports, reason = "used by whichever feature is on")]
use no_diagnostics;
