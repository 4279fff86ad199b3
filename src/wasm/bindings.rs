//! What Wasmtime's `bindgen!` makes of `wit/`. Nothing outside `wasm/` names these types.

#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated; wit/policy.wit documents it")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "policy",
    imports: { default: trappable },
});
