//! Generated from `wit/`; no author ever sees it. `host.rs` and the two export modules convert.
//!
//! Three worlds of one export each, so that a plugin exports `diagnostics` or does not; what they
//! import is generated once.

#![allow(missing_debug_implementations, unreachable_pub, clippy::all, reason = "generated")]

/// What every plugin may call.
pub mod imports {
    wit_bindgen::generate!({ path: "../wit", world: "kimberlite:plugin/plugin-imports" });
}

/// What a collector exports.
pub mod collector {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package kimberlite:sdk; world collector { export kimberlite:plugin/collector@0.1.0; }",
        with: { "kimberlite:plugin/types@0.1.0": crate::bindings::imports::kimberlite::plugin::types },
        pub_export_macro: true,
        export_macro_name: "__export_collector",
        default_bindings_module: "kimberlite_plugin_sdk::bindings::collector",
    });
}

/// What a handler exports.
pub mod handler {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package kimberlite:sdk; world handler { export kimberlite:plugin/handler@0.1.0; }",
        with: { "kimberlite:plugin/types@0.1.0": crate::bindings::imports::kimberlite::plugin::types },
        pub_export_macro: true,
        export_macro_name: "__export_handler",
        default_bindings_module: "kimberlite_plugin_sdk::bindings::handler",
    });
}

/// What both export about their memory.
pub mod diagnostics {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "package kimberlite:sdk; world diagnostics { export kimberlite:plugin/diagnostics@0.1.0; }",
        pub_export_macro: true,
        export_macro_name: "__export_diagnostics",
        default_bindings_module: "kimberlite_plugin_sdk::bindings::diagnostics",
    });
}
