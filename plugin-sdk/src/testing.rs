//! stub
pub(crate) mod fakes;
