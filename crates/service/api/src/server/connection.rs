//! A connection's life: counted in, asked who it is, given one request, ended.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::socket::{Access, Permissions};
use super::{
    CONNECTIONS_MAX, CONNECTIONS_OTHERS_MAX, HEADER_BYTES_MAX, HEADER_SECS_MAX, HEADERS_MAX, REQUEST_SECS_MAX, STOP_GRACE, State, routes,
};

/// Refused clients that are told why at a time; those past it are closed without a word.
const TURNED_AWAY_MAX: usize = 16;
const TURN_AWAY: Duration = Duration::from_secs(2);

/// What a handler knows of its connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub access: Access,
    /// Set by a live view: it has no end, and the time limit of a request is not for it.
    pub endless: Arc<AtomicBool>,
}

pub(super) async fn serve(listener: StdUnixListener, permissions: Permissions, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    let router = routes::router(state.clone());
    let all = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let others = Arc::new(Semaphore::new(CONNECTIONS_OTHERS_MAX));
    let doorstep = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let Some(stream) = take(accepted.map(|(stream, _)| stream)).await else { continue };
        let access = stream.peer_cred().map_or(Access::Nothing, |peer| permissions.access(peer.uid(), peer.gid(), peer.pid()));
        let Some(places) = places(&all, &others, stream.peer_cred().is_ok_and(|peer| peer.uid() == 0)) else {
            state.counters.refused.fetch_add(1, Ordering::Relaxed);
            if let Ok(place) = doorstep.clone().try_acquire_owned() {
                tokio::spawn(async move {
                    let _place = place;
                    // Gone, or too slow to be told.
                    let _ = timeout(TURN_AWAY, turn_away(stream)).await;
                });
            }
            continue;
        };
        state.counters.accepted.fetch_add(1, Ordering::Relaxed);
        if access == Access::Nothing {
            state.counters.forbidden.fetch_add(1, Ordering::Relaxed);
        }
        let peer = Peer { access, endless: Arc::default() };
        let (router, state) = (router.clone().layer(Extension(peer.clone())), state.clone());
        tokio::spawn(async move {
            let _places = places;
            converse(stream, router, &peer.endless, &state).await;
        });
    }
    // Whoever is still here after that is cut off with the runtime.
    let _ = timeout(STOP_GRACE, all.acquire_many(CONNECTIONS_MAX as u32)).await;
}

/// One request and its answer, within the limits.
pub(super) async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, endless: &AtomicBool, state: &State) {
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_SECS_MAX))
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = sleep(Duration::from_secs(REQUEST_SECS_MAX)) => {
            if !endless.load(Ordering::Relaxed) {
                state.counters.timed_out.fetch_add(1, Ordering::Relaxed);
                return;
            }
            connection.await
        }
    };
    if result.is_err() {
        state.counters.broken.fetch_add(1, Ordering::Relaxed);
    }
}

/// After an error of accept(2) the next attempt waits: most of them mean that there is no room for another descriptor.
pub(super) async fn take<S>(accepted: io::Result<S>) -> Option<S> {
    match accepted {
        Ok(stream) => Some(stream),
        Err(error) => {
            if error.kind() != ErrorKind::ConnectionAborted {
                sleep(Duration::from_millis(100)).await;
            }
            None
        }
    }
}

fn places(all: &Arc<Semaphore>, others: &Arc<Semaphore>, root: bool) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
    let other = if root { None } else { Some(others.clone().try_acquire_owned().ok()?) };
    Some((all.clone().try_acquire_owned().ok()?, other))
}

/// Reads the request, which would otherwise be cut off while the client still writes it, and says why it is refused.
async fn turn_away(mut stream: UnixStream) -> io::Result<()> {
    let body = r#"{"code":"busy","message":"too many connections at once","help":"close other clients, or try again"}"#;
    let mut request = [0; HEADER_BYTES_MAX];
    // The first piece is enough: what is written after it finds the connection still open, or half closed by the client.
    let _ = timeout(TURN_AWAY / 2, stream.read(&mut request)).await;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}
