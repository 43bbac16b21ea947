//! The paths of `/v1` and what each asks of the agent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, Request, State as Shared};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::time::timeout;

use super::connection::Peer;
use super::follow::{FollowBody, Form};
use super::socket::Access;
use super::{BODY_BYTES_MAX, FOLLOWS_MAX, REQUEST_SECS_MAX, State, metrics};
use crate::{ApiError, ArmRequest, Backend, ErrorCode, EventQuery, ModeChange};

const PATHS: &str = "/v1/status, /v1/workloads, /v1/events, /v1/events/follow, /v1/events/{id}, /v1/events/{id}/why, /v1/coverage, /v1/arm, /v1/mode, \
                     /v1/policy, /v1/reload, /v1/down, /v1/metrics";
/// What a call leaves of [`REQUEST_SECS_MAX`] for saying that it took too long.
const ANSWER_SECS: u64 = 5;

pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/workloads", get(workloads))
        .route("/v1/events", get(events))
        .route("/v1/events/follow", get(follow))
        .route("/v1/events/{id}", get(event))
        .route("/v1/events/{id}/why", get(why))
        .route("/v1/coverage", get(coverage))
        .route("/v1/arm", post(arm))
        .route("/v1/mode", get(mode).put(set_mode))
        .route("/v1/policy", get(policy).put(set_policy))
        .route("/v1/reload", post(reload))
        .route("/v1/down", post(down))
        .route("/v1/metrics", get(all_metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn(permit))
        .with_state(state)
}

/// Asks the agent on a thread of its own, so that a call that hangs holds up nothing but its place.
pub(super) async fn call<T: Send + 'static>(
    state: &Arc<State>,
    ask: impl FnOnce(&dyn Backend) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let busy = || ApiError::new(ErrorCode::Busy, "the agent does not answer in time").help("see `bulkhead events` and the agent's own log");
    let (backend, calls) = (state.backend.clone(), state.calls.clone());
    let answer = async move {
        let place = calls.acquire_owned().await.map_err(|_| busy())?;
        let asked = tokio::task::spawn_blocking(move || {
            let _place = place;
            ask(&*backend)
        });
        asked.await.unwrap_or_else(|_| Err(ApiError::internal("the agent failed while it answered; this is a defect")))
    };
    timeout(Duration::from_secs(REQUEST_SECS_MAX - ANSWER_SECS), answer).await.unwrap_or_else(|_| Err(busy()))
}

pub(super) fn error_response(error: ApiError) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &error)
}

/// Reading needs to be let in, changing needs more.
async fn permit(Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let checks = request.method() == Method::PUT && request.uri().path() == "/v1/policy" && only_check(request.uri().query()) == Ok(true);
    match peer.access {
        Access::Change => next.run(request).await,
        Access::Read if !changes || checks => next.run(request).await,
        Access::Read => error_response(ApiError::new(ErrorCode::Forbidden, "your group may look, not change").help("be root")),
        Access::Nothing => error_response(
            ApiError::new(ErrorCode::Forbidden, "only root may use this socket")
                .help("be root, or set `api.group` in the agent's configuration"),
        ),
    }
}

type App = Shared<Arc<State>>;

async fn status(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.status()).await)
}

async fn workloads(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.workloads()).await)
}

async fn events(Shared(state): App, query: Result<Query<EventQuery>, QueryRejection>) -> Response {
    match query {
        Ok(Query(query)) => answer(call(&state, move |agent| agent.events(&query)).await),
        Err(rejection) => error_response(wrong_query(&rejection)),
    }
}

async fn event(Shared(state): App, Path(id): Path<String>) -> Response {
    let found = async {
        let id = event_id(&id)?;
        let found = call(&state, move |agent| agent.events(&EventQuery::by_id(id))).await?;
        found.into_iter().next().ok_or_else(|| no_such_event(id))
    };
    answer(found.await)
}

async fn why(Shared(state): App, Path(id): Path<String>) -> Response {
    match event_id(&id) {
        Ok(id) => answer(call(&state, move |agent| agent.why(id)).await),
        Err(error) => error_response(error),
    }
}

async fn follow(
    Shared(state): App,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return error_response(wrong_query(&rejection)),
    };
    let Ok(place) = state.follows.clone().try_acquire_owned() else {
        return error_response(
            ApiError::new(ErrorCode::Busy, format!("{FOLLOWS_MAX} live views are open already")).help("close one of them"),
        );
    };
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = if accepted.contains("text/event-stream") { Form::ServerSent } else { Form::JsonLines };
    let asked = query.clone();
    // The live view is opened first: what comes between the two is in both, and told once.
    let opened = call(&state, move |agent| {
        let follower = agent.follow()?;
        let before = if asked.since.is_some() || asked.limit.is_some() { agent.events(&asked)? } else { Vec::new() };
        Ok((follower, before))
    });
    match opened.await {
        Ok((follower, before)) => {
            peer.endless.store(true, Ordering::Relaxed);
            let body = FollowBody::new(form, before, follower, query, place);
            ([(CONTENT_TYPE, form.content_type())], Body::new(body)).into_response()
        }
        Err(error) => error_response(error),
    }
}

async fn coverage(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.coverage()).await)
}

async fn arm(Shared(state): App, request: Request) -> Response {
    let armed = async {
        let body = whole_body(request).await?;
        let request: ArmRequest = serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the body does not name a container's network: {error}"))
                .help(r#"send {"pid": 4711, "container": "its id"}; `container` may be absent"#)
        })?;
        call(&state, move |agent| agent.arm(&request)).await
    };
    answer(armed.await)
}

async fn mode(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.mode()).await)
}

async fn set_mode(Shared(state): App, request: Request) -> Response {
    let changed = async {
        let body = whole_body(request).await?;
        let change: ModeChange = serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the body is not a mode change: {error}"))
                .help(r#"send {"selector": "name=web", "mode": "protect"}; without `selector` the default is meant"#)
        })?;
        call(&state, move |agent| agent.set_mode(&change)).await
    };
    answer(changed.await)
}

async fn policy(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.policy()).await)
}

/// `?check=true`: asked in one place, because it also decides who may ask.
fn only_check(query: Option<&str>) -> Result<bool, ApiError> {
    match query.unwrap_or_default() {
        "" | "check=false" => Ok(false),
        "check=true" => Ok(true),
        _ => Err(ApiError::new(ErrorCode::BadRequest, "the only parameter here is `check`, `true` or `false`").help("see docs/api.md")),
    }
}

async fn set_policy(Shared(state): App, request: Request) -> Response {
    let changed = async {
        let only_check = only_check(request.uri().query())?;
        let body = whole_body(request).await?;
        let text = String::from_utf8(body.into()).map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("the policy is not UTF-8: a wrong byte at {}", error.utf8_error().valid_up_to()))
        })?;
        call(&state, move |agent| if only_check { agent.check_policy(&text) } else { agent.apply_policy(&text) }).await
    };
    answer(changed.await)
}

async fn reload(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.reload()).await)
}

async fn down(Shared(state): App) -> Response {
    answer(call(&state, |agent| agent.down()).await)
}

async fn all_metrics(Shared(state): App) -> Response {
    answer(metrics::collect(&state).await)
}

async fn no_such_path(request: Request) -> Response {
    let path: String = request.uri().path().chars().take(128).collect();
    error_response(ApiError::not_found(format!("there is no `{path}`")).help(format!("these are: {PATHS}")))
}

async fn no_such_method(request: Request) -> Response {
    let method: String = request.method().as_str().chars().take(32).collect();
    error_response(ApiError::new(ErrorCode::MethodNotAllowed, format!("`{method}` means nothing here")).help("see docs/api.md"))
}

async fn whole_body(request: Request) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(ErrorCode::TooLarge, format!("the body is larger than {BODY_BYTES_MAX} bytes"));
    let body = request.into_body();
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(ApiError::new(ErrorCode::BadRequest, "the body ended before its end")),
    }
}

fn event_id(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        let text: String = text.chars().take(32).collect();
        ApiError::new(ErrorCode::BadRequest, format!("`{text}` is not an event id"))
            .help("ids are the numbers in `event_id`, as in `bulkhead events`")
    })
}

fn no_such_event(id: u64) -> ApiError {
    ApiError::not_found(format!("there is no event {id}"))
        .help("old events are removed when their place is needed; `bulkhead events` lists what is kept")
}

fn wrong_query(rejection: &QueryRejection) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, rejection.body_text()).help("see docs/api.md")
}

fn answer<T: Serialize>(result: Result<T, ApiError>) -> Response {
    match result {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => error_response(error),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            (status, [(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "application/json")],
            r#"{"code":"internal","message":"the answer has no JSON form"}"#,
        )
            .into_response(),
    }
}
