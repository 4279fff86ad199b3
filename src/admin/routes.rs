//! Paths and who may ask for them.
//!
//! Invariant: with a token configured, every path but health wants it; the token is that of the live configuration, so a
//! reload changes it. Deliberately absent: what is answered.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

use super::status::{self, Status};
use super::{Source, page, scrape};
use crate::observe::expose::{Exposition, OPEN_METRICS};

#[derive(Clone)]
struct Shared {
    source: Arc<dyn Source>,
    exposition: Arc<Exposition>,
}

/// All paths.
pub(super) fn router(source: Arc<dyn Source>) -> Router {
    let of = Arc::clone(&source);
    let exposition = Arc::new(Exposition::new(move |page| scrape::write(&*of, page)));
    let shared = Shared { source, exposition };
    let guarded = Router::new()
        .route("/", get(dashboard))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status_json))
        .route_layer(middleware::from_fn_with_state(shared.clone(), guard));
    let open = Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready));
    open.merge(guarded).fallback(nothing_here).with_state(shared)
}

async fn dashboard(State(shared): State<Shared>) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page::render(&Status::read(&*shared.source))).into_response()
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (media, text) = if accept.contains("application/openmetrics-text") {
        (OPEN_METRICS, shared.exposition.text())
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", shared.exposition.classic_text())
    };
    ([(header::CONTENT_TYPE, media)], text).into_response()
}

async fn status_json(State(shared): State<Shared>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(Status::read(&*shared.source))).into_response()
}

/// Anybody may learn whether it is ready; why it is not, only who has the token.
async fn ready(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let reasons = status::unready(&*shared.source);
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    let text = if admitted(&shared, &headers) { reasons.join("\n") } else { "not ready".to_owned() };
    (StatusCode::SERVICE_UNAVAILABLE, text + "\n").into_response()
}

async fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, "there is /, /metrics, /healthz, /readyz and /api/v1/status\n").into_response()
}

async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if admitted(&shared, request.headers()) {
        return next.run(request).await;
    }
    let ask =
        [(header::WWW_AUTHENTICATE, "Basic realm=\"pointsman: any user, the token as password\", charset=\"UTF-8\"")];
    let text =
        "this needs the token of admin.token_file: Authorization: Bearer TOKEN, or as the password of any user\n";
    (StatusCode::UNAUTHORIZED, ask, text).into_response()
}

/// Whether the request carries the token, if there is one.
fn admitted(shared: &Shared, headers: &HeaderMap) -> bool {
    let live = shared.source.live();
    // Without the table the listener lasts until the restart; nobody said that it is open.
    let Some(admin) = &live.config.admin else { return false };
    let Some(token) = &admin.token else { return true };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(credential);
    given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())))
}

/// The token in an Authorization header: a bearer's, or the password of Basic, which browsers can ask for.
fn credential(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_both_schemes() {
        for (header, expected) in [
            ("Bearer t0ken", Some("t0ken")),
            ("bearer  t0ken ", Some("t0ken")),
            ("Basic YW55OnQwOmtlbg==", Some("t0:ken")),
            ("Basic YW55", None),
            ("Basic ***", None),
            ("Digest t0ken", None),
            ("t0ken", None),
            ("", None),
        ] {
            assert_eq!(credential(header).as_deref(), expected, "{header}");
        }
    }
}
