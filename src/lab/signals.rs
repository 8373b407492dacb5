//! Ctrl-C, SIGTERM and SIGHUP raise a flag that every wait of the lab looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::LabError;

/// Whether we were asked to stop, and by which signal. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicI32>);

impl Stop {
    /// A flag that the signals raise from now on, for the rest of the process.
    pub fn on_signals() -> Result<Stop, LabError> {
        let failed = |e: std::io::Error| LabError::failed("watch signals", e);
        let stop = Stop::default();
        let raised = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
        let listen = |kind| {
            let _inside = runtime.enter();
            signal(kind).map_err(failed)
        };
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let number = tokio::select! {
                        _ = Signal::recv(&mut interrupt) => 2,
                        _ = Signal::recv(&mut terminate) => 15,
                        _ = Signal::recv(&mut hangup) => 1,
                    };
                    if raised.raise(number) {
                        eprintln!("\nmapt lab: stopped by a signal, taking everything down");
                    } else {
                        eprintln!("mapt lab: still taking everything down");
                    }
                }
            });
        });
        Ok(stop)
    }

    /// Raises the flag; true for the first.
    pub fn raise(&self, signal: i32) -> bool {
        self.0.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The signal that raised it.
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.load(Ordering::SeqCst)).filter(|&number| number != 0)
    }

    /// An error once the flag is up.
    pub fn check(&self) -> Result<(), LabError> {
        if self.signal().is_some() { Err(LabError::Interrupted) } else { Ok(()) }
    }
}
