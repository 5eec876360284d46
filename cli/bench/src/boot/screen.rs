//! The guest's console: which marks its text shows, and what it said last.

use std::collections::VecDeque;

use super::Mark;

/// Longest line that is looked at; the rest of a longer one is ignored.
const LINE: usize = 512;

/// How many of the last lines are kept for error messages.
const KEPT: usize = 12;

/// A text on the console that means something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// What it means.
    pub mark: Mark,
    /// Its pieces, which follow each other in one line.
    pub pieces: Vec<String>,
}

impl Text {
    /// `pieces` in one line, one after the other, mean `mark`.
    pub fn new(mark: Mark, pieces: &[&str]) -> Self {
        Self {
            mark,
            pieces: pieces.iter().map(ToString::to_string).collect(),
        }
    }

    /// What kernels and systemd print when nobody told them to be quiet.
    pub fn usual() -> Vec<Self> {
        vec![
            Self::new(Mark::Init, &["Run /", " as init process"]),
            Self::new(Mark::Init, &["systemd[1]: systemd "]),
            Self::new(Mark::Sysinit, &["Reached target", "sysinit.target"]),
        ]
    }

    fn is_in(&self, line: &str) -> bool {
        let rest = self.pieces.iter().try_fold(line, |rest, piece| {
            rest.split_once(piece.as_str()).map(|(_, after)| after)
        });
        rest.is_some()
    }
}

/// What a console showed.
#[derive(Debug)]
pub(super) struct Screen<'a> {
    texts: &'a [Text],
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(texts: &'a [Text]) -> Self {
        Self {
            texts,
            line: Vec::with_capacity(LINE),
            last: VecDeque::with_capacity(KEPT),
        }
    }

    /// Takes what came at once; returns the marks that it shows.
    pub(super) fn see(&mut self, bytes: &[u8]) -> Vec<Mark> {
        let mut marks = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' => {
                    self.look(&mut marks);
                    self.end_line();
                }
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
        // A prompt has no line break.
        self.look(&mut marks);
        marks
    }

    fn look(&self, marks: &mut Vec<Mark>) {
        let line = String::from_utf8_lossy(&self.line);
        let shown = self.texts.iter().filter(|text| text.is_in(&line));
        marks.extend(shown.map(|text| text.mark));
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = line.trim_end().chars().map(printable).collect();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    /// The last lines, without control characters.
    pub(super) fn into_last(mut self) -> Vec<String> {
        self.end_line();
        self.last.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_text_are_found_in_one_line_however_it_arrives() {
        let texts = Text::usual();
        let mut screen = Screen::new(&texts);
        assert!(screen.see(b"[    0.1] Run /in").is_empty());
        assert_eq!(screen.see(b"it as init process\r\n"), [Mark::Init]);
        assert!(screen.see(b"Run /\n as init process\n").is_empty());
    }

    #[test]
    fn prompt_without_a_line_break_is_seen() {
        let texts = [Text::new(Mark::Ready, &["login: "])];
        assert_eq!(Screen::new(&texts).see(b"slot1 login: "), [Mark::Ready]);
    }

    #[test]
    fn last_lines_are_kept_without_control_characters_and_within_bounds() {
        let mut screen = Screen::new(&[]);
        for line in 0..100 {
            screen.see(format!("\x1b[1mline {line}\r\n").as_bytes());
        }
        screen.see(&vec![b'x'; 1 << 20]);
        let last = screen.into_last();
        assert_eq!(last.len(), KEPT);
        assert_eq!(last[KEPT - 2], " [1mline 99");
        assert_eq!(last[KEPT - 1].len(), LINE);
    }
}
