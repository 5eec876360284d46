//! What the lab tells people while it works, all on standard error: headings, notes, and bars for
//! what takes long. Without a terminal a bar is one plain line.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Prints a heading.
pub fn heading(text: &str) {
    eprintln!("== {text}");
}

/// Prints a note.
pub fn note(text: &str) {
    eprintln!("lab: {text}");
}

/// A running step with a spinner, and a percentage once one is known.
#[derive(Debug)]
pub struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Starts showing the step called `text`.
    #[must_use]
    pub fn start(text: impl Into<String>) -> Self {
        let text = text.into();
        if !stderr().is_terminal() {
            note(&text);
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let bar = ProgressBar::new(100);
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.set_message(text);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar }
    }

    /// Shows how far the step is, in percent.
    pub fn set_percent(&self, percent: u64) {
        if self.bar.position() == 0 {
            self.bar
                .set_style(style("{spinner} {msg} [{bar:30}] {pos}% {elapsed}"));
        }
        self.bar.set_position(percent.min(100));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The style of `template`, which is one of ours and therefore parses.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
