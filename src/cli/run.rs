//! `pointsman run`: placeholder until the gateway stands.

use super::args::RunArgs;

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// A configuration that cannot be used, a port that is taken.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (_config, _log) = super::begin(args)?;
    anyhow::bail!("the gateway is not built yet")
}
