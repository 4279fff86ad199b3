//! Components written to misbehave, generated on the spot from a few lines of WebAssembly text.
//!
//! Shared by the policy host's own tests and by those that run the whole gateway (`#[path]`). Each component is a
//! valid policy but for the one thing that its name says.

#![allow(dead_code, unreachable_pub, clippy::duplicated_attributes, reason = "each test crate uses some of them")]

use wasm_encoder::{Component, CustomSection, InstanceSection, ModuleSection};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding, decode, embed_component_metadata};

/// The world that fixtures are made for: what the policy tenant-router imports, and the export.
const WORLD: &[u8] = include_bytes!("../../plugins/artifacts/tenant-router.wasm");

/// `NOTIFY`: no trial query has this kind, so what a component does on it shows only when it serves.
pub const TRIGGER_KIND: u32 = 33;

/// A policy in the making. The answers stand in memory: `configure`'s at 1024, `route`'s at 2048; zeroes mean
/// "nothing needed, decisions depend on the statement" and "pass".
pub struct Fixture {
    /// Stands before the memory.
    pub imports: &'static str,
    /// Pages of memory at the start.
    pub pages: u64,
    /// Fields of the module: globals, data, tables, a start function.
    pub fields: String,
    /// Instructions at the beginning of `configure`.
    pub configure: String,
    /// Instructions at the beginning of `route`; local 0 is the kind, local 1 the access.
    pub route: String,
}

impl Default for Fixture {
    fn default() -> Self {
        Self { imports: "", pages: 1, fields: String::new(), configure: String::new(), route: String::new() }
    }
}

/// Instructions that make `route` answer a role of the default shard.
pub fn answer_role(role: u32) -> String {
    format!("(i32.store8 (i32.const 2052) (i32.const 1)) (i32.store (i32.const 2056) (i32.const {role}))")
}

/// Instructions that run only on the trigger.
pub fn on_trigger(instructions: &str) -> String {
    format!("(if (i32.eq (local.get 0) (i32.const {TRIGGER_KIND})) (then {instructions}))")
}

impl Fixture {
    /// One that answers a role, and that its decisions depend on anything, so that none is kept.
    pub fn role(role: u32) -> Self {
        Self {
            configure: "(i32.store (i32.const 1040) (i32.const 3))".into(),
            route: answer_role(role),
            ..Self::default()
        }
    }

    /// Puts instructions before what `route` does.
    pub fn first(mut self, instructions: &str) -> Self {
        self.route = format!("{instructions} {}", self.route);
        self
    }

    /// Adds fields to the module.
    pub fn with(mut self, fields: &str) -> Self {
        self.fields.push_str(fields);
        self
    }

    /// The core module.
    pub fn core(&self) -> Vec<u8> {
        let Self { imports, pages, fields, configure, route } = self;
        let text = format!(
            r#"(module
                {imports}
                (memory (export "memory") {pages})
                (global $top (mut i32) (i32.const 4096))
                {fields}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (global.set $top (i32.add (global.get $top) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))
                    (if (i32.gt_u (global.get $top) (i32.const 60000)) (then (global.set $top (i32.const 4096))))
                    (i32.sub (global.get $top) (i32.and (i32.add (local.get 3) (i32.const 15)) (i32.const -16))))
                (func (export "pointsman:policy/routing@0.1.0#configure") (param i32 i32) (result i32)
                    {configure}
                    (i32.const 1024))
                (func (export "pointsman:policy/routing@0.1.0#route")
                    (param i32 i32 i32 i32 i64 i64 i64 i32 i32 i32 i32 i32 i32 i64 i64 i64) (result i32)
                    {route}
                    (i32.const 2048)))"#
        );
        wat::parse_str(text).expect("the fixture is well-formed")
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        let Ok(DecodedWasm::Component(resolve, world)) = decode(WORLD) else { panic!("the artifact is a component") };
        let mut core = self.core();
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false)
            .expect("the world is encodable");
        let mut encoder = ComponentEncoder::default();
        encoder.validate(true).module(&core).expect("the module fits the world");
        encoder.encode().expect("the fixture is encodable")
    }
}

/// A policy that routes everything to the primary (0) or to replicas (1). `salt` makes files that differ.
pub fn good(role: u32, salt: u32) -> Vec<u8> {
    Fixture::role(role).with(&format!("(data (i32.const 3000) \"salt {salt}\")")).build()
}

/// As [`good`], but it decides about reads outside transaction blocks alone.
pub fn reads(role: u32, salt: u32) -> Vec<u8> {
    reading(role, salt).build()
}

/// As [`reads`], with code that no query reaches: at least so many bytes of file.
pub fn sized(role: u32, salt: u32, bytes: usize) -> Vec<u8> {
    let block = |n: usize| {
        format!(
            "(if (i32.gt_u (local.get 0) (i32.const {n})) (then (local.set 0 (i32.mul (local.get 0) (i32.const {n})))))
            (loop $l
                (i32.store (i32.and (local.get 0) (i32.const 1020)) (i32.rotl (local.get 0) (i32.const 7)))
                (local.set 0 (i32.add (i32.load (i32.and (local.get 0) (i32.const 508))) (i32.const {n})))
                (br_if $l (i32.lt_u (local.get 0) (i32.const {n}))))"
        )
    };
    let function = |n: usize| {
        let blocks: String = (n..n + 4).map(block).collect();
        format!("(func (param i32) (result i32) {blocks} (local.get 0))")
    };
    let short = reading(role, salt).build().len();
    let ten: String = (0..10).map(function).collect();
    let each = (reading(role, salt).with(&ten).build().len() - short) / 10;
    let code: String = (0..=bytes.saturating_sub(short) / each).map(function).collect();
    reading(role, salt).with(&code).build()
}

fn reading(role: u32, salt: u32) -> Fixture {
    // Access 1 is a read; the lowest fact is a transaction block.
    let read = "(i32.and (i32.eq (local.get 1) (i32.const 1)) (i32.eqz (i32.and (local.get 3) (i32.const 1))))";
    let route = format!("(if {read} (then {}) (else (i32.store8 (i32.const 2052) (i32.const 0))))", answer_role(role));
    Fixture { route, ..Fixture::role(role) }.with(&format!("(data (i32.const 3000) \"salt {salt}\")"))
}

/// The same component to whoever runs it, and another file.
pub fn salted(component: &[u8], salt: u32) -> Vec<u8> {
    let mut more = Component::new();
    more.section(&CustomSection { name: "salt".into(), data: salt.to_le_bytes().as_slice().into() });
    [component, &more.finish()[8..]].concat()
}

/// Instructions that answer `route` with a refusal whose text is 12 MiB long; a SQLSTATE must lie at `state`.
fn long_answer(state: u32) -> String {
    format!(
        "(drop (memory.grow (i32.const 200))) \
     (i32.store8 (i32.const 2052) (i32.const 2)) \
     (i32.store (i32.const 2056) (i32.const {state})) (i32.store (i32.const 2060) (i32.const 5)) \
     (i32.store (i32.const 2064) (i32.const 4096)) (i32.store (i32.const 2068) (i32.const 12582912)) \
     (return (i32.const 2048))"
    )
}

/// Files and components that must never serve, with words that the refusal must contain.
pub fn unloadable() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let loops = "(loop $l (br $l))";
    let recursion = "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let good = good(1, 0);
    let mut truncated = good.clone();
    truncated.truncate(good.len() / 2);
    let mut flipped = good.clone();
    // In the length of the first section.
    flipped[9] ^= 0x10;
    let table = "(table 50000000 funcref)";
    vec![
        ("endless loop at the start", Fixture::role(1).with(&format!("(func $s {loops}) (start $s)")).build(), "deadline"),
        ("endless loop in configure", Fixture { configure: loops.into(), ..Fixture::role(1) }.build(), "deadline"),
        ("endless loop in route", Fixture::role(1).first(loops).build(), "deadline"),
        ("four gigabytes at once", Fixture { pages: 65536, ..Fixture::role(1) }.build(), "memory"),
        (
            "memory that grows and grows",
            Fixture::role(1)
                .first("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable")
                .build(),
            "memory",
        ),
        ("a huge table", Fixture::role(1).with(table).build(), "table entries"),
        ("fifty instances", fifty_instances(&good), "instance"),
        ("deep recursion", Fixture::role(1).with(recursion).first("(drop (call $deep (i32.const 0)))").build(), "stack"),
        ("a trap on every call", Fixture::role(1).first("unreachable").build(), "trap"),
        ("a trap at the start", Fixture::role(1).with("(func $s unreachable) (start $s)").build(), "trap"),
        (
            "twelve megabytes of answer",
            Fixture::role(1).with("(data (i32.const 3000) \"42501\")").first(&long_answer(3000)).build(),
            "answer",
        ),
        ("an answer that is none", Fixture::role(1).first("(i32.store8 (i32.const 2052) (i32.const 9)) (return (i32.const 2048))").build(), "answer"),
        ("a role that is none", Fixture::role(7).build(), "role 7"),
        ("an answer out of memory's bounds", Fixture::role(1).first("(return (i32.const -8))").build(), "answer"),
        (
            "a SQLSTATE that means success",
            Fixture::role(1)
                .with("(data (i32.const 3000) \"00000no\")")
                .first(
                    "(i32.store8 (i32.const 2052) (i32.const 2)) \
                     (i32.store (i32.const 2056) (i32.const 3000)) (i32.store (i32.const 2060) (i32.const 5)) \
                     (i32.store (i32.const 2064) (i32.const 3005)) (i32.store (i32.const 2068) (i32.const 2)) \
                     (return (i32.const 2048))",
                )
                .build(),
            "SQLSTATE",
        ),
        (
            "a manifest that contradicts itself",
            Fixture { configure: "(i32.store (i32.const 1036) (i32.const 8))".into(), ..Fixture::default() }.build(),
            "contradicts itself",
        ),
        (
            "a getter that the manifest does not name",
            Fixture {
                imports: r#"(import "pointsman:policy/topology@0.1.0" "shard-named" (func $named (param i32 i32 i32)))"#,
                ..Fixture::role(1)
            }
            .first("(call $named (i32.const 0) (i32.const 0) (i32.const 3500))")
            .build(),
            "manifest does not name",
        ),
        ("half a file", truncated, "does not compile"),
        ("one bit flipped", flipped, "does not compile"),
        ("a text", b"-- SELECT 1\n".to_vec(), "not WebAssembly"),
        ("machine code", b"\x7fELF\x02\x01\x01\0".to_vec(), "not WebAssembly"),
        ("a core module", Fixture::role(1).core(), "core module"),
        ("no policy", text(r#"(component)"#), "does not export"),
        (
            "another version",
            text(r#"(component (instance $i) (export "pointsman:policy/routing@9.0.0" (instance $i)))"#),
            "speaks pointsman:policy@9.0.0",
        ),
        (
            "another world",
            text(
                r#"(component
                    (core module $m (func (export "f") (result i32) (i32.const 0)))
                    (core instance $c (instantiate $m))
                    (func $f (result u32) (canon lift (core func $c "f")))
                    (instance $i (export "configure" (func $f)) (export "route" (func $f)))
                    (export "pointsman:policy/routing@0.1.0" (instance $i)))"#,
            ),
            "other types",
        ),
        (
            "a function missing",
            text(r#"(component (instance $i) (export "pointsman:policy/routing@0.1.0" (instance $i)))"#),
            "no function configure",
        ),
        ("WASI", text(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#), "no system interface"),
        ("an unknown import", text(r#"(component (import "evil:host/shell@1.0.0" (instance)))"#), "may import"),
        (
            "an interface of ours that is not",
            text(r#"(component (import "pointsman:policy/filesystem@0.1.0" (instance)))"#),
            "does not serve",
        ),
    ]
}

/// Components that pass every check and misbehave on the trigger alone, with the fault that must be told.
pub fn latent() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    latent_in(|| Fixture::role(1))
}

/// As [`latent`], with the decisions of [`reads`] but for the trigger.
pub fn latent_reads() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    latent_in(|| reading(1, 0))
}

fn latent_in(base: impl Fn() -> Fixture) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let recursion = "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    vec![
        ("trap", base().first(&on_trigger("unreachable")).build(), "trap"),
        ("loop", base().first(&on_trigger("(loop $l (br $l))")).build(), "deadline"),
        (
            "memory",
            base()
                .first(&on_trigger(
                    "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable",
                ))
                .build(),
            "memory",
        ),
        ("recursion", base().with(recursion).first(&on_trigger("(drop (call $deep (i32.const 0)))")).build(), "stack"),
        (
            "shard",
            base()
                .first(&on_trigger(
                    "(i32.store8 (i32.const 2060) (i32.const 1)) (i32.store (i32.const 2064) (i32.const 77))",
                ))
                .build(),
            "answer",
        ),
        ("bounds", base().first(&on_trigger("(return (i32.const -8))")).build(), "answer"),
        (
            "twelve megabytes",
            base().with("(data (i32.const 3100) \"42501\")").first(&on_trigger(&long_answer(3100))).build(),
            "answer",
        ),
    ]
}

/// A policy that never gives back memory: one page a call.
pub fn leaking() -> Vec<u8> {
    Fixture::role(1).first("(drop (memory.grow (i32.const 1)))").build()
}

/// Each prefix and each flipped bit of a good policy that a broken copy could leave behind, thinned out.
pub fn damaged() -> Vec<Vec<u8>> {
    let good = good(1, 0);
    let step = (good.len() / 40).max(1);
    let prefixes = (0..good.len()).step_by(step).map(|length| good[..length].to_vec());
    let flips = (0..good.len()).step_by(step).map(|at| {
        let mut flipped = good.clone();
        flipped[at] ^= 1 << (at % 8);
        flipped
    });
    prefixes.chain(flips).collect()
}

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the fixture is well-formed")
}

/// A good policy with fifty more core instances behind it.
fn fifty_instances(good: &[u8]) -> Vec<u8> {
    // Sections may follow those of the component; the new module's index is the number of those before it.
    let modules = u32::try_from(good.windows(8).filter(|window| window == b"\0asm\x01\0\0\0").count()).expect("few");
    let mut component = Component::new();
    component.section(&ModuleSection(&wasm_encoder::Module::new()));
    let mut instances = InstanceSection::new();
    for _ in 0..50 {
        instances.instantiate(modules, std::iter::empty::<(&str, wasm_encoder::ModuleArg)>());
    }
    component.section(&instances);
    let sections = component.finish();
    let mut bytes = good.to_vec();
    bytes.extend_from_slice(&sections[8..]);
    bytes
}
