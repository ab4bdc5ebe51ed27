//! Ctrl-C, SIGTERM and SIGHUP as a flag that waiting code looks at. The second signal ends the process at once; the
//! kernel then ends its children too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Set once somebody asked this process to stop.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on signals set the flag instead of ending the process.
    ///
    /// # Errors
    /// As sigaction(2).
    pub fn install() -> io::Result<Self> {
        let set = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Order matters: the first signal finds the flag still clear here, and the next line sets it.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&set))?;
            flag::register(signal, Arc::clone(&set))?;
        }
        Ok(Self(set))
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
