//! Everything an author needs to write a kimberlite collector or handler.

pub mod agent;
pub mod batch;
pub mod host_stats;
pub mod http;
pub mod log;
pub mod state;
pub mod tcp;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod udp;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;

#[cfg(any(test, all(target_arch = "wasm32", feature = "count-allocations")))]
mod alloc;
mod collector;
mod element;
mod error;
mod event;
mod handler;
mod hash;
mod net;
mod registry;
mod run;
mod series;
mod settings;
mod strings;
mod summary;

pub use batch::{Batch, Kind, Sample, Value};
pub use collector::Collector;
pub use element::{Additions, AttributeValue, Element};
pub use error::{Context, Error, Result};
pub use event::{Check, Event, Level, Status};
pub use handler::{HandleError, Handler, Receipt};
pub use net::NetError;
pub use run::{Number, Reason, Run};
pub use series::Series;
pub use settings::{FromSetting, SettingValue, Settings};
pub use summary::Summary;
