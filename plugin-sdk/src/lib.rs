//! Everything an author needs to write a kimberlite collector or handler.

pub mod batch;
pub mod log;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod export;

mod alloc;
mod collector;
mod element;
mod error;
mod event;
mod handler;
mod hash;
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
pub use run::{Number, Reason, Run};
pub use series::Series;
pub use settings::{FromSetting, SettingValue, Settings};
pub use summary::Summary;
