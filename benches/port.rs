//! The serial port of a tiny guest that runs, and what the guest says there of its clock and its writes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::time::{Duration, Instant};

/// For how long the guest's clock is compared with the host's.
const CALIBRATION: Duration = Duration::from_millis(500);

/// Either end of a guest's serial port.
pub struct Port {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
}

/// What a guest says when it is asked, of the time since it was asked last. Times are in ticks of its
/// clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Its clock.
    pub now: u64,
    /// The longest time between two readings of its clock.
    pub gap: u64,
    /// What it waited for writes, if it writes.
    pub writes: Writes,
}

/// How fast a guest's clock is.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    ticks_per_us: f64,
}

/// For how long writes were waited for, in ticks of the guest's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    /// The longest time.
    pub longest: u64,
    /// How many there were of each kind. Kind `b` took `(8 + b % 8) << (b / 8 - 3)` ticks, or up to an
    /// eighth more.
    kinds: BTreeMap<u64, u64>,
}

impl Port {
    /// A guest that writes to `reader` and reads from `writer`.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        Self {
            reader: BufReader::new(Box::new(reader)),
            writer: Box::new(writer),
        }
    }

    /// Reads lines until one ends with `text`.
    ///
    /// # Errors
    /// When the guest ends before, or the port fails.
    pub fn wait_for(&mut self, text: &str) -> io::Result<()> {
        let mut line = String::new();
        while !line.trim_end().ends_with(text) {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Asks the guest. What the port has from before is not an answer, and skipped.
    ///
    /// # Errors
    /// When the guest does not answer, or the port fails.
    pub fn report(&mut self) -> io::Result<Report> {
        self.writer.write_all(b"?")?;
        self.writer.flush()?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.contains('!') {
                return Err(io::Error::other("a write of the guest failed"));
            }
            if let Some(report) = Report::parse(&line) {
                return Ok(report);
            }
        }
    }

    /// How fast the guest's clock is.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn rate(&mut self) -> io::Result<Rate> {
        // An answer that comes late is no measure of anything.
        let first = self.report()?.now;
        let began = Instant::now();
        let mut last = (began.elapsed(), first);
        while last.0 < CALIBRATION {
            last.1 = self.report()?.now;
            last.0 = began.elapsed();
        }
        Ok(Rate {
            ticks_per_us: (last.1 - first) as f64 / last.0.as_micros() as f64,
        })
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Port")
    }
}

impl Rate {
    /// So many ticks in microseconds.
    pub fn micros(self, ticks: u64) -> u128 {
        Duration::from_secs_f64(ticks as f64 / self.ticks_per_us / 1e6).as_micros()
    }
}

impl Report {
    fn parse(line: &str) -> Option<Self> {
        let hex = |word: &str| u64::from_str_radix(word, 16).ok();
        let mut words = line.split_whitespace();
        let now = words.next().filter(|word| word.len() == 16);
        let (now, gap) = (hex(now?)?, hex(words.next()?)?);
        let longest = words.next().map_or(Some(0), hex)?;
        let kinds = words.map(|word| {
            let (kind, count) = word.split_once(':')?;
            Some((hex(kind)?, hex(count)?))
        });
        let kinds = kinds.collect::<Option<_>>()?;
        let writes = Writes { longest, kinds };
        Some(Self { now, gap, writes })
    }
}

impl Writes {
    /// Counts others as well.
    pub fn add(&mut self, others: &Self) {
        self.longest = self.longest.max(others.longest);
        for (kind, count) in &others.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// What so many percent of them took at most, in ticks, an eighth too much at worst.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        for (kind, count) in &self.kinds {
            seen += count;
            if seen >= wanted {
                let power = (kind / 8).clamp(3, 59);
                return ((9 + kind % 8) << (power - 3)).min(self.longest);
            }
        }
        0
    }
}
