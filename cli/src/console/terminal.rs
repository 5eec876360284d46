//! Raw mode, and the way back from it on every path: drop, panic, signal, stop.

use std::io;
use std::sync::{Mutex, Once, PoisonError};

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// The settings to go back to, while the terminal is raw. Global because the panic hook needs it.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal in raw mode; cooked again when dropped. At most one exists.
#[derive(Debug)]
pub(super) struct RawTerminal {
    _private: (),
}

impl RawTerminal {
    /// Makes standard input raw, or does nothing when it is not a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        if !isatty(stdin()) {
            return Ok(None);
        }
        restore_on_panic();
        let terminal = Self { _private: () };
        terminal.raise()?;
        Ok(Some(terminal))
    }

    /// Makes the terminal raw, again after [`Self::lower`].
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn raise(&self) -> io::Result<()> {
        let original = tcgetattr(stdin())?;
        let mut raw = original.clone();
        raw.make_raw();
        // Stored first: from the moment the terminal is raw, the way back is known.
        *original_settings() = Some(original);
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(())
    }

    /// Brings the terminal back for a while.
    pub(super) fn lower(&self) {
        restore();
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn original_settings() -> std::sync::MutexGuard<'static, Option<Termios>> {
    ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings the terminal back when it is raw. What it refuses now, it will refuse for ever.
fn restore() {
    if let Some(original) = original_settings().take() {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &original);
    }
}

/// A panic message on a raw terminal is a staircase, and an abort after it runs no drop.
fn restore_on_panic() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let next = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
}
