//! Routing policies for the Pointsman gateway.
//!
//! A policy implements [`Policy`] and names itself once:
//!
//! ```
//! use pointsman_policy::{Decision, Depends, Manifest, Needs, Policy, Query, Settings, Target};
//!
//! struct NightShift {
//!     tables: Vec<String>,
//! }
//!
//! impl Policy for NightShift {
//!     fn configure(settings: &Settings) -> Result<(Self, Manifest), String> {
//!         settings.only(&["tables"])?;
//!         let manifest = Manifest { needs: Needs::SHAPE, depends: Depends::Statement, version: "1.0.0" };
//!         Ok((Self { tables: settings.strings("tables")? }, manifest))
//!     }
//!
//!     fn route(&mut self, query: &Query) -> Decision {
//!         let reports = query.tables().iter().any(|table| self.tables.contains(&table.name));
//!         if reports && query.may_use_replica() {
//!             Target::replica().label("purpose", "reports").into()
//!         } else {
//!             Decision::Pass
//!         }
//!     }
//! }
//!
//! pointsman_policy::export_policy!(NightShift);
//! ```
//!
//! Build it for `wasm32-unknown-unknown` as a `cdylib`, encode it as a component, put it into the gateway's policy folder.
//!
//! One instance serves one worker thread of the gateway and may be thrown away at any moment: keep caches in it, no
//! truths. A panic is a failure for that one query; after a few the gateway goes back to the policy's last good version.

#[doc(hidden)]
#[allow(missing_docs)]
pub mod bindings;
mod decision;
pub mod key;
mod query;
mod settings;

pub use decision::{Decision, Rejection, Role, Shards, Target};
pub use query::{
    Access, Effects, Equality, Function, Hint, Kind, Load, Node, NodeRole, Parameter, Query, Session, Table, Topology,
    Value,
};
pub use settings::{Json, Settings};

/// A routing policy.
pub trait Policy: Sized + 'static {
    /// Takes the settings, once, before any query. An error should name the setting, what is wrong, what would be right.
    fn configure(settings: &Settings) -> Result<(Self, Manifest), String>;

    /// Decides about one query.
    fn route(&mut self, query: &Query) -> Decision;
}

/// What a policy needs and promises.
#[derive(Debug, Clone, Copy)]
pub struct Manifest {
    /// What it calls itself; `env!("CARGO_PKG_VERSION")` is a good answer.
    pub version: &'static str,
    /// What it may ask about; asking about more is a failure.
    pub needs: Needs,
    /// What a decision depends on.
    pub depends: Depends,
}

/// Groups of facts; combine them with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs(u32);

impl Needs {
    /// What [`Query`] tells by itself.
    pub const NONE: Self = Self(0);
    /// [`Query::text`].
    pub const TEXT: Self = Self(1);
    /// [`Query::tables`], [`Query::functions`], [`Query::equalities`].
    pub const SHAPE: Self = Self(1 << 1);
    /// [`Query::equality_value`], [`Query::parameter`].
    pub const VALUES: Self = Self(1 << 2);
    /// [`Query::session`].
    pub const SESSION: Self = Self(1 << 3);
    /// [`Query::topology`].
    pub const TOPOLOGY: Self = Self(1 << 4);
    /// [`Topology::load`].
    pub const LOAD: Self = Self(1 << 5);
    /// [`now`].
    pub const CLOCK: Self = Self(1 << 6);
    /// [`Query::hints`].
    pub const HINTS: Self = Self(1 << 7);
}

impl std::ops::BitOr for Needs {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a decision depends on, beside what [`Query`] tells by itself; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Depends {
    /// Tables, functions, hints, shards and nodes: the gateway may keep a decision for all texts that differ in literals only.
    Statement = 0,
    /// Also who asks.
    Session = 1,
    /// Also literals and bound values.
    Values = 2,
    /// No promise: the policy is asked every time.
    Anything = 3,
}

/// A counter that shows among the gateway's metrics. Make it in [`Policy::configure`].
#[derive(Debug, Clone, Copy)]
pub struct Counter(u32);

impl Counter {
    /// By name: lower case letters, digits, underscores.
    pub fn new(name: &str) -> Self {
        Self(bindings::pointsman::policy::host::counter(name))
    }

    /// Adds one.
    pub fn count(self) {
        bindings::pointsman::policy::host::count(self.0, 1);
    }
}

/// How much a line in the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Something is wrong.
    Error = 0,
    /// Something may be wrong.
    Warning = 1,
    /// Good to know.
    Info = 2,
    /// Good to know while looking for something.
    Debug = 3,
}

/// Writes a line to the gateway's log; a few a second are kept.
pub fn log(level: Level, message: &str) {
    bindings::pointsman::policy::host::log(level as u32, message);
}

/// Milliseconds since 1970, in steps of 10.
pub fn now() -> u64 {
    bindings::pointsman::policy::host::now()
}

/// Makes a type that implements [`Policy`] the component's policy.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            use $crate::bindings::exports::pointsman::policy::routing as wit;
            ::std::thread_local! {
                static POLICY: ::std::cell::RefCell<::std::option::Option<$policy>> =
                    const { ::std::cell::RefCell::new(::std::option::Option::None) };
            }
            struct Export;
            impl wit::Guest for Export {
                fn configure(
                    settings: ::std::string::String,
                ) -> ::std::result::Result<wit::Manifest, ::std::string::String> {
                    let settings = $crate::Settings::parse(&settings)?;
                    let (policy, manifest) = <$policy as $crate::Policy>::configure(&settings)?;
                    POLICY.with(|slot| *slot.borrow_mut() = ::std::option::Option::Some(policy));
                    ::std::result::Result::Ok(manifest.into())
                }

                fn route(query: wit::Query) -> ::std::result::Result<wit::Decision, ::std::string::String> {
                    POLICY.with(|slot| match &mut *slot.borrow_mut() {
                        ::std::option::Option::Some(policy) => {
                            let query = $crate::Query::from(query);
                            ::std::result::Result::Ok($crate::Policy::route(policy, &query).into())
                        }
                        ::std::option::Option::None => {
                            ::std::result::Result::Err(::std::string::String::from("not configured"))
                        }
                    })
        }
            }
            $crate::bindings::export!(Export with_types_in $crate::bindings);
        };
    };
}

impl From<Manifest> for bindings::exports::pointsman::policy::routing::Manifest {
    fn from(manifest: Manifest) -> Self {
        Self {
            version: manifest.version.into(),
            needs: manifest.needs.0,
            depends: manifest.depends as u32,
            options: Vec::new(),
        }
    }
}
