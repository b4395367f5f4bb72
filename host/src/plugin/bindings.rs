//! Generated from `wit/`. Converted at once (in `convert`), never passed on.

#![allow(missing_debug_implementations, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "host",
    imports: {
        "kimberlite:plugin/tcp": async | trappable,
        "kimberlite:plugin/udp": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "kimberlite:plugin/tcp.connection": super::network::Connection,
        "kimberlite:plugin/udp.socket": super::network::Datagrams,
    },
});
