//! `GET /metrics` for Prometheus, on loopback, without any other path.

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::CONTENT_TYPE;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::connection::{converse, take};
use super::routes::{call, error_response};
use super::{Counters, METRICS_CONNECTIONS_MAX, ServerError, State};
use crate::{ApiError, Metric, MetricKind, prometheus_text};

pub(super) fn bind(address: SocketAddr) -> Result<StdTcpListener, ServerError> {
    if !address.ip().is_loopback() {
        return Err(ServerError::NotLoopback(address));
    }
    let bound = StdTcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| ServerError::Metrics { address, source })
}

pub(super) async fn serve(listener: StdTcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let not_found = || async { error_response(ApiError::not_found("only `GET /metrics` is here")) };
    let router = Router::new().route("/metrics", get(text)).fallback(not_found).with_state(state.clone());
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let Some(stream) = take(accepted.map(|(stream, _)| stream)).await else { continue };
        let Ok(place) = places.clone().try_acquire_owned() else {
            state.counters.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        state.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let (router, state) = (router.clone(), state.clone());
        tokio::spawn(async move {
            let _place = place;
            converse(stream, router, &AtomicBool::new(false), &state).await;
        });
    }
}

/// The agent's metrics and the server's own.
pub(super) async fn collect(state: &Arc<State>) -> Result<Vec<Metric>, ApiError> {
    let mut metrics = call(state, |backend| backend.metrics()).await?;
    metrics.extend(own(&state.counters));
    Ok(metrics)
}

async fn text(Shared(state): Shared<Arc<State>>) -> Response {
    match collect(&state).await {
        Ok(metrics) => {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], Body::from(prometheus_text(&metrics))).into_response()
        }
        Err(error) => error_response(error),
    }
}

fn own(counters: &Counters) -> [Metric; 2] {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let failed = [
        ("refused", &counters.refused),
        ("forbidden", &counters.forbidden),
        ("timed-out", &counters.timed_out),
        ("broken", &counters.broken),
    ];
    let by_reason =
        Metric::new("bulkhead_api_connections_failed_total", "API connections that came to nothing, by reason", MetricKind::Counter);
    [
        Metric::counter("bulkhead_api_connections_total", "API connections accepted", load(&counters.accepted)),
        failed.into_iter().fold(by_reason, |metric, (reason, counter)| metric.sample([("reason", reason)], load(counter) as f64)),
    ]
}
