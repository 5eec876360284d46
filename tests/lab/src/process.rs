//! Running the programs the lab is made of: quiet when they succeed, complete when they fail.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` and returns its standard output.
///
/// # Errors
/// When it cannot start or fails; the message holds the command and what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("Cannot start {shown}"))?;
    if !output.status.success() {
        bail!(
            "{shown} failed ({})\n{}{}",
            output.status,
            tail(&String::from_utf8_lossy(&output.stdout), 20),
            tail(&String::from_utf8_lossy(&output.stderr), 40)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` on the terminal the lab has; true when it succeeded.
///
/// # Errors
/// When it cannot start.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let shown = describe(command);
    let status = command
        .status()
        .with_context(|| format!("Cannot start {shown}"))?;
    Ok(status.success())
}

/// The command as a person would type it (for messages, not for a shell).
#[must_use]
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    let mut line = words.join(" ");
    if line.len() > 300 {
        line = line.chars().take(300).chain("…".chars()).collect();
    }
    line
}

/// The last `lines` lines of `text`.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let skipped = all.len().saturating_sub(lines);
    all.iter()
        .skip(skipped)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// `word` quoted for a POSIX shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc\n");
        assert_eq!(tail("a", 2), "a\n");
    }

    #[test]
    fn quotes_survive_the_shell() {
        let text = "it's $HOME \"x\"";
        let script = format!("printf %s {}", quoted(text));
        assert_eq!(
            output(Command::new("sh").args(["-c", &script])).unwrap(),
            text
        );
    }
}
