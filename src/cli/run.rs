//! `pointsman run`: the gateway until it is told to stop.
//!
//! Invariant: SIGTERM and SIGINT stop it in order, SIGHUP reads the configuration again.
//! Deliberately absent: what a gateway is.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::args::RunArgs;
use crate::gateway::Gateway;

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// A configuration that cannot be used, a port that is taken.
pub(super) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let (config, _log) = super::begin(args)?;
    super::files::raise_limit(&config);
    // Accepting and housekeeping only; sessions run on workers of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.context("the runtime did not start")?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let gateway = Gateway::start(config, &args.config).await?;
        for address in gateway.addresses() {
            tracing::info!(%address, "listening");
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => gateway.reload(),
            }
        }
        tracing::info!(sessions = gateway.sessions(), "stopping");
        gateway.shutdown().await;
        Ok(())
    })
}
