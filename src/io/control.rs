//! The control socket: who may connect, how long a line and a client may take, what is answered.
//!
//! All of it runs on the control thread. The data path is asked for a page at a time, and only when the client has
//! taken the page before: a stuck client costs it nothing.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group, Uid};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::service::{Act, Service};
use crate::config::{ControlConfig, ControlMode, MAX_TEXT, RuleSet};
use crate::ops::control::{Answer, Ask, Filter, MAX_LINE, Request};
use crate::ops::mappings::Place;

/// Clients at a time.
const CLIENTS: usize = 128;
/// How long a client may take to say its line, or to take what it asked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a checked rule set is held for the client's commit.
const HOLD: Duration = Duration::from_secs(120);
/// Octets gathered before they are written.
const BATCH: usize = 32 << 10;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error("another process serves `{0}`: give each instance a socket of its own")]
    Served(PathBuf),
    /// It would replace a file.
    #[error("`{0}` is there and is no socket: move it away, or name another path")]
    NoSocket(PathBuf),
    /// No such group.
    #[error("there is no group `{0}` on this host (key `group`)")]
    Group(String),
    /// The system says no.
    #[error(
        "`{path}` cannot be {act} ({error}); its directory must exist and be the daemon's to write to (`RuntimeDirectory=mapt` in a unit)"
    )]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// The answer.
        error: io::Error,
    },
}

/// An open socket; the file goes with it.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    file: SocketFile,
    mode: ControlMode,
}

/// The file of a socket; it goes with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a socket. One that nobody serves any more is replaced; nobody may connect before its mode is set.
pub fn bind(config: &ControlConfig) -> Result<(UnixListener, SocketFile), ControlError> {
    let path = &config.socket;
    let failed = |act| {
        let path = path.clone();
        move |error| ControlError::Io { path, act, error }
    };
    check_unused(path)?;
    let group = config.group.as_deref().map(group).transpose()?;
    let new = PathBuf::from(format!("{}.{}", path.display(), std::process::id()));
    let _ = fs::remove_file(&new);
    // Its mode is set while its name is nobody's yet.
    let made = SocketFile(new.clone());
    let listener = UnixListener::bind(&new).map_err(failed("made"))?;
    let mode = match config.mode {
        ControlMode::Owner => 0o600,
        ControlMode::Group => 0o660,
    };
    fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(failed("given its mode"))?;
    if let Some(group) = group {
        nix::unistd::chown(&new, None, Some(group)).map_err(|e| failed("given to its group")(e.into()))?;
    }
    fs::rename(&new, path).map_err(failed("put in place"))?;
    std::mem::forget(made);
    Ok((listener, SocketFile(path.clone())))
}

impl Control {
    /// Makes the socket; nobody is answered yet.
    pub fn open(config: &ControlConfig) -> Result<Control, ControlError> {
        let (listener, file) = bind(config)?;
        Ok(Control { listener, file, mode: config.mode })
    }

    /// Serves it until the answer is dropped.
    pub fn serve(self, service: Arc<Service>) -> Served {
        let Control { listener, file, mode } = self;
        let room = Arc::new(Semaphore::new(CLIENTS));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors: those in use will go.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (service, room) = (service.clone(), room.clone());
                tokio::spawn(async move {
                    let Ok(_place) = room.try_acquire() else {
                        return refuse(stream, format!("{CLIENTS} clients are connected already")).await;
                    };
                    converse(stream, mode, &service).await;
                });
            }
        });
        Served { task, _file: file }
    }
}

/// A socket that is being served.
#[derive(Debug)]
pub struct Served {
    task: JoinHandle<()>,
    _file: SocketFile,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn check_unused(path: &Path) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(ControlError::NoSocket(path.to_owned())),
        Ok(_) if Probe::connect(path).is_ok() => Err(ControlError::Served(path.to_owned())),
        _ => Ok(()),
    }
}

fn group(name: &str) -> Result<Gid, ControlError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    Group::from_name(name).ok().flatten().map(|group| group.gid).ok_or_else(|| ControlError::Group(name.to_owned()))
}

/// The kernel has checked the socket's mode; this also holds where somebody has changed it, or where a privileged
/// process hands its connection on.
fn may_ask(stream: &UnixStream, mode: ControlMode) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    peer.uid() == 0 || peer.uid() == Uid::effective().as_raw() || mode == ControlMode::Group
}

async fn converse(stream: UnixStream, mode: ControlMode, service: &Service) {
    if !may_ask(&stream, mode) {
        return refuse(stream, "this user may not ask: see `control.mode`".to_owned()).await;
    }
    let mut client = Client { stream: BufReader::new(stream), batch: Vec::new(), held: None, former: None };
    // A client that is gone or stuck: nobody is left to be told.
    let _ = client.converse(service).await;
    if let Some(token) = client.held {
        let _ = service.acts.send(Act::Abort(token)).await;
    }
}

async fn refuse(mut stream: UnixStream, reason: String) {
    let line = Answer::<(), ()>::Error(reason).line();
    let _ = timeout(PATIENCE, stream.write_all(&line)).await;
}

struct Client {
    stream: BufReader<UnixStream>,
    batch: Vec<u8>,
    /// A rule set that was checked for it.
    held: Option<u64>,
    /// What its commit replaced.
    former: Option<Box<RuleSet>>,
}

/// A text in pieces of whole lines.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest[..rest.floor_char_boundary(BATCH)].rfind('\n').map_or(rest.len(), |end| end + 1);
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece).filter(|piece| !piece.is_empty())
    })
}

/// The client is gone or stuck, or has been told what was wrong with its line.
struct Gone;

impl Client {
    /// One line after another; the first soon, those after it in their own time, but a checked set is not held forever.
    async fn converse(&mut self, service: &Service) -> Result<(), Gone> {
        let mut patience = PATIENCE;
        loop {
            let Some(ask) = self.listen(patience).await? else { return Ok(()) };
            self.answer(ask, service).await?;
            patience = HOLD;
        }
    }

    async fn listen(&mut self, patience: Duration) -> Result<Option<Ask>, Gone> {
        let mut line = Vec::new();
        let read = timeout(patience, (&mut self.stream).take(MAX_LINE as u64).read_until(b'\n', &mut line)).await;
        let reason = match read {
            Err(_) => format!("no line within {} s", patience.as_secs()),
            Ok(Err(_)) => return Err(Gone),
            Ok(Ok(0)) => return Ok(None),
            Ok(Ok(_)) if line.last() != Some(&b'\n') => {
                format!("a line has {MAX_LINE} octets at most and ends in a newline")
            }
            Ok(Ok(_)) => match Request::parse(&line) {
                Ok(ask) => return Ok(Some(ask)),
                Err(reason) => reason,
            },
        };
        self.fail(reason).await?;
        Err(Gone)
    }

    /// The text that follows an offer.
    async fn body(&mut self, octets: usize) -> Result<Vec<u8>, Gone> {
        if octets > MAX_TEXT {
            self.fail(format!("{octets} octets of rules: expected at most {MAX_TEXT}")).await?;
            return Err(Gone);
        }
        // Room is made as it comes: the figure alone costs nothing.
        let mut text = Vec::new();
        while text.len() < octets {
            let left = (octets - text.len()) as u64;
            match timeout(PATIENCE, (&mut self.stream).take(left.min(1 << 20)).read_to_end(&mut text)).await {
                Ok(Ok(1..)) => {}
                _ => return Err(Gone),
            }
        }
        Ok(text)
    }

    async fn answer(&mut self, ask: Ask, service: &Service) -> Result<(), Gone> {
        match ask {
            Ask::Status => self.finish(service.standing.status().await).await,
            Ask::Version => self.finish(Ok(service.standing.program())).await,
            Ask::Rules => match service.rules().await {
                Ok(text) => self.list(pieces(&text), Ok(())).await,
                Err(reason) => self.fail(reason).await,
            },
            Ask::Routes => match service.standing.routes(true).await {
                Ok((rows, sums)) => self.list(rows, Ok((service.standing.now().plan.tun.clone(), sums))).await,
                Err(error) => self.fail(error.to_string()).await,
            },
            Ask::Counters => {
                let counters = service.standing.meters.document();
                self.list(service.standing.rules(), Ok(counters)).await
            }
            Ask::Fragments => self.finish(Ok(service.standing.fragments())).await,
            Ask::Drops => match service.drops().await {
                Ok(drops) => self.list(drops, Ok(())).await,
                Err(reason) => self.fail(reason).await,
            },
            Ask::Mappings(filter) => {
                let mut place = Some(Place::default());
                while let Some(from) = place {
                    match service.mappings(&filter, from).await {
                        Ok((rows, next)) => {
                            for row in rows {
                                self.say(Answer::<_, ()>::Row(row)).await?;
                            }
                            place = next;
                        }
                        Err(reason) => return self.fail(reason).await,
                    }
                }
                self.finish(service.ports().await).await
            }
            Ask::Events(filter) => self.follow(&filter, service).await,
            Ask::Prepare(offer) => {
                let text = self.body(offer.octets).await?;
                let result = service.act(|reply| Act::Prepare { text, offer, reply }).await;
                let result = result.map(|(prepared, token)| {
                    self.held = Some(token);
                    prepared
                });
                self.finish(result).await
            }
            Ask::Commit => {
                let Some(token) = self.held.take() else { return self.fail("nothing was checked before".into()).await };
                let result = service.act(|reply| Act::Commit { token, reply }).await;
                let result = result.map(|(committed, former)| {
                    self.former = Some(Box::new(former));
                    committed
                });
                self.finish(result).await
            }
            Ask::Revert => {
                let Some(rules) = self.former.take() else {
                    return self.fail("nothing was committed before".into()).await;
                };
                let result = service.act(|reply| Act::Revert { rules, reply }).await;
                self.finish(result).await
            }
            Ask::Confirm => {
                let result = service.act(Act::Confirm).await;
                self.finish(result).await
            }
        }
    }

    /// Until the client goes, or is too slow.
    async fn follow(&mut self, filter: &Filter, service: &Service) -> Result<(), Gone> {
        let mut events = service.events.listen();
        loop {
            let batch = tokio::select! {
                batch = events.recv() => batch,
                // A client that follows has nothing more to say: this is its end.
                _ = self.stream.fill_buf() => return Err(Gone),
            };
            match batch {
                Ok(batch) => {
                    for event in batch.iter().filter(|event| filter.admits_event(event)) {
                        self.say(Answer::<_, ()>::Row(event)).await?;
                    }
                    self.flush().await?;
                }
                Err(RecvError::Lagged(batches)) => {
                    return self.fail(format!("too slow: {batches} batches of events are lost")).await;
                }
                Err(RecvError::Closed) => return self.fail("the daemon is ending".to_owned()).await,
            }
        }
    }

    async fn list<R: Serialize, D: Serialize>(
        &mut self,
        rows: impl IntoIterator<Item = R>,
        end: Result<D, String>,
    ) -> Result<(), Gone> {
        for row in rows {
            self.say(Answer::<_, ()>::Row(row)).await?;
        }
        self.finish(end).await
    }

    async fn finish<D: Serialize>(&mut self, result: Result<D, String>) -> Result<(), Gone> {
        match result {
            Ok(done) => self.say(Answer::<(), _>::Done(done)).await?,
            Err(reason) => self.say(Answer::<(), ()>::Error(reason)).await?,
        }
        self.flush().await
    }

    async fn fail(&mut self, reason: String) -> Result<(), Gone> {
        self.finish::<()>(Err(reason)).await
    }

    async fn say<R: Serialize, D: Serialize>(&mut self, answer: Answer<R, D>) -> Result<(), Gone> {
        self.batch.extend(answer.line());
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        match timeout(PATIENCE, self.stream.get_mut().write_all(&self.batch)).await {
            Ok(Ok(())) => {
                self.batch.clear();
                Ok(())
            }
            _ => Err(Gone),
        }
    }
}
