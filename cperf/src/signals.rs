//! Ctrl-C, SIGTERM and SIGHUP as a flag that waiting code looks at. A second signal ends the process at once; the
//! kernel then ends its children too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Signals this close together count as one: timeout(1), say, signals its child and then the child's process group.
const TOGETHER: Duration = Duration::from_millis(500);

/// Set once somebody asked this process to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    set: Arc<AtomicBool>,
    /// The next signal ends the process.
    armed: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on signals set the flag instead of ending the process.
    ///
    /// # Errors
    /// As sigaction(2).
    pub fn install() -> io::Result<Self> {
        let made = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&made.armed))?;
            flag::register(signal, Arc::clone(&made.set))?;
        }
        Ok(made)
    }

    /// Lets a second signal end the process at once. Starts a thread, so it comes after what needs a process without
    /// any (user namespaces).
    pub fn watch(&self) {
        let watched = self.clone();
        std::thread::spawn(move || {
            while !watched.is_set() {
                std::thread::sleep(TOGETHER / 5);
            }
            std::thread::sleep(TOGETHER);
            watched.armed.store(true, Ordering::Relaxed);
        });
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }
}
