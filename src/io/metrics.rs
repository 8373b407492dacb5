//! The metrics endpoint: `GET /metrics` over HTTP/1.1, a request a connection.
//!
//! It runs on the control thread, and is bounded: clients at a time, the time each may take, the octets of a request, and
//! how often the figures are gathered. The data path is asked for a few sums, once a second at most.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::control::{ControlError, SocketFile, bind};
use super::service::Service;
use crate::config::{Listen, MetricsConfig};
use crate::ops::metrics::{Facts, Format, page};

/// Clients at a time.
const CLIENTS: usize = 32;
/// How long a client may take to ask, and how long to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of a request, at most.
const MAX_REQUEST: usize = 8 << 10;
/// Header lines of a request, at most.
const MAX_HEADERS: usize = 64;
/// How long a client may take to close once it has been answered, and what it may still say.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 10);
/// Figures are gathered again after this.
const FRESH: Duration = Duration::from_secs(1);

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The system says no.
    #[error("metrics.listen: {0}: {1}; is another process there, or the address not this host's?")]
    Tcp(SocketAddr, io::Error),
    /// A Unix socket.
    #[error("metrics.listen: {0}")]
    Unix(ControlError),
}

/// An open endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    rules: usize,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Endpoint {
    /// Opens it; nobody is answered yet.
    pub async fn open(config: &MetricsConfig) -> Result<Endpoint, MetricsError> {
        let listener = match &config.listen {
            Listen::Tcp(at) => {
                let bound = TcpListener::bind(at).await;
                Listener::Tcp(bound.map_err(|error| MetricsError::Tcp(*at, error))?)
            }
            Listen::Unix(socket) => {
                let (listener, file) = bind(socket).map_err(MetricsError::Unix)?;
                Listener::Unix(listener, file)
            }
        };
        Ok(Endpoint { listener, rules: config.rules })
    }

    /// Serves it until the answer is dropped.
    pub fn serve(self, service: Arc<Service>) -> ServedMetrics {
        let Endpoint { listener, rules } = self;
        let desk = Arc::new(Desk {
            service,
            rules,
            room: Semaphore::new(CLIENTS),
            hall: Semaphore::new(CLIENTS),
            gathered: Mutex::new(None),
        });
        let (task, file) = match listener {
            Listener::Tcp(listener) => (
                tokio::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&desk).attend(stream))),
                            // Out of descriptors: those in use will go.
                            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                        }
                    }
                }),
                None,
            ),
            Listener::Unix(listener, file) => (
                tokio::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => drop(tokio::spawn(Arc::clone(&desk).attend(stream))),
                            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                        }
                    }
                }),
                Some(file),
            ),
        };
        ServedMetrics { task, _file: file }
    }
}

/// An endpoint that is being served.
#[derive(Debug)]
pub struct ServedMetrics {
    task: JoinHandle<()>,
    _file: Option<SocketFile>,
}

impl Drop for ServedMetrics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Desk {
    service: Arc<Service>,
    rules: usize,
    room: Semaphore,
    /// For those for whom there is no room, to be told so.
    hall: Semaphore,
    gathered: Mutex<Option<(Instant, Arc<Facts>)>>,
}

/// A status line's end, the `Content-Type`, the body.
struct Reply(&'static str, &'static str, String);

impl Reply {
    fn refusal(status: &'static str, why: &str) -> Reply {
        Reply(status, "text/plain; charset=utf-8", format!("{why}\n"))
    }
}

impl Desk {
    async fn attend<S: AsyncRead + AsyncWrite + Unpin>(self: Arc<Desk>, mut stream: S) {
        let Ok(_place) = self.room.try_acquire() else {
            if let Ok(_place) = self.hall.try_acquire() {
                tell(&mut stream, Reply::refusal("503 Service Unavailable", "too many clients")).await;
            }
            return;
        };
        let reply = match timeout(PATIENCE, read_request(&mut stream)).await {
            Err(_) => Reply::refusal("408 Request Timeout", "no request in time"),
            Ok(None) => return,
            Ok(Some(Err(reply))) => reply,
            Ok(Some(Ok(format))) => self.answer(format).await,
        };
        tell(&mut stream, reply).await;
    }

    async fn answer(&self, format: Format) -> Reply {
        match self.facts().await {
            Ok(facts) => Reply("200 OK", format.content_type(), page(&facts, format)),
            Err(reason) => Reply::refusal("503 Service Unavailable", &reason),
        }
    }

    async fn facts(&self) -> Result<Arc<Facts>, String> {
        // Whoever comes meanwhile waits for the same figures.
        let mut gathered = self.gathered.lock().await;
        if let Some((at, facts)) = &*gathered
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(facts));
        }
        let standing = &self.service.standing;
        let status = standing.status().await?;
        let few = status.rules <= self.rules;
        let facts = Arc::new(Facts {
            queues: standing.meters.by_queue().map(|(engine, io)| (engine, io.into())).collect(),
            sums: standing.meters.document(),
            rules: few.then(|| standing.rules()),
            fragments: standing.fragments(),
            // Without a NAPT there are none.
            ports: self.service.ports().await.unwrap_or_default(),
            status,
        });
        *gathered = Some((Instant::now(), Arc::clone(&facts)));
        Ok(facts)
    }
}

/// `None` where the client has gone without asking.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Result<Format, Reply>> {
    let mut request = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request) {
            Ok(httparse::Status::Complete(_)) => return Some(judge(&parsed)),
            Ok(httparse::Status::Partial) if request.len() >= MAX_REQUEST => {
                return Some(Err(Reply::refusal("431 Request Header Fields Too Large", "the request is too long")));
            }
            Ok(httparse::Status::Partial) => {}
            Err(error) => return Some(Err(Reply::refusal("400 Bad Request", &error.to_string()))),
        }
        let room = (MAX_REQUEST - request.len()) as u64;
        match stream.take(room).read_buf(&mut request).await {
            Ok(1..) => {}
            _ => return None,
        }
    }
}

fn judge(request: &httparse::Request<'_, '_>) -> Result<Format, Reply> {
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path != "/metrics" {
        return Err(Reply::refusal("404 Not Found", "expected /metrics"));
    }
    if request.method != Some("GET") {
        return Err(Reply::refusal("405 Method Not Allowed\r\nAllow: GET", "expected GET"));
    }
    let accept = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept = accept.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default();
    Ok(Format::accepted(accept))
}

/// A client that is gone or stuck: nobody is left to be told.
async fn tell(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), Reply(status, kind, body): Reply) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let all = head + &body;
    let say = async {
        stream.write_all(all.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Ok(Ok(())) = timeout(PATIENCE, say).await {
        // What is unread when a connection is closed takes the answer with it.
        let (patience, most) = LINGER;
        let _ = timeout(patience, tokio::io::copy(&mut stream.take(most), &mut tokio::io::sink())).await;
    }
}
