//! Where a program with an edge writes its logs: at once, but for the access log. That has a line for each request, tens of
//! thousands a second: they are gathered for a moment and written together.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The target of the access log's lines.
pub const ACCESS: &str = "longshore_edge::access";

/// How long a line may wait, and how many bytes of them.
const LONGEST: Duration = Duration::from_millis(50);
const MOST: usize = 64 * 1024;

/// Cheap to clone. What waits is lost if the program is killed; [`Logs::flush`] at its end writes it.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    writer: OnceLock<Thread>,
}

struct State {
    waiting: Vec<u8>,
    out: Box<dyn Write + Send>,
}

impl Logs {
    /// Starts the thread that writes what was gathered; where none can be had, nothing waits.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let state = State { waiting: Vec::new(), out: Box::new(out) };
        let logs = Self(Arc::new(Inner { state: Mutex::new(state), writer: OnceLock::new() }));
        let weak = Arc::downgrade(&logs.0);
        let started = thread::Builder::new().name("access-log".into()).spawn(move || {
            loop {
                thread::park_timeout(Duration::from_secs(60));
                let Some(inner) = weak.upgrade() else { return };
                if !inner.state.lock().waiting.is_empty() {
                    thread::sleep(LONGEST);
                    let _ = inner.state.lock().flush();
                }
            }
        });
        if let Ok(started) = started {
            let _ = logs.0.writer.set(started.thread().clone());
        }
        logs
    }

    pub fn flush(&self) -> io::Result<()> {
        self.0.state.lock().flush()
    }

    fn gather(&self, line: &[u8]) -> io::Result<()> {
        let mut state = self.0.state.lock();
        let first = state.waiting.is_empty();
        state.waiting.extend_from_slice(line);
        match self.0.writer.get() {
            Some(writer) if state.waiting.len() <= MOST => {
                drop(state);
                if first {
                    writer.unpark();
                }
                Ok(())
            }
            _ => state.flush(),
        }
    }
}

impl State {
    fn flush(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.waiting);
        self.waiting.clear();
        written
    }
}

/// Of one event.
pub struct Line<'a> {
    logs: &'a Logs,
    gathered: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered {
            self.logs.gather(bytes)?;
        } else {
            let mut state = self.logs.0.state.lock();
            state.flush()?;
            state.out.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { logs: self, gathered: false }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { logs: self, gathered: event.target() == ACCESS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells of each write.
    struct Out(Sender<String>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logs() -> (Logs, Receiver<String>) {
        let (out, written) = channel();
        (Logs::to(Out(out)), written)
    }

    #[test]
    fn lines_of_the_access_log_are_written_together_and_soon() {
        let (logs, written) = logs();
        for line in ["a\n", "b\n"] {
            Line { logs: &logs, gathered: true }.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(written.recv().unwrap(), "a\nb\n");
        Line { logs: &logs, gathered: true }.write_all(b"c\n").unwrap();
        assert_eq!(written.recv().unwrap(), "c\n", "nobody has to ask for it");
    }

    #[test]
    fn all_others_are_written_at_once_and_in_order() {
        let (logs, written) = logs();
        Line { logs: &logs, gathered: true }.write_all(b"a\n").unwrap();
        logs.make_writer().write_all(b"b\n").unwrap();
        assert_eq!((written.try_recv().unwrap(), written.try_recv().unwrap()), ("a\n".to_string(), "b\n".to_string()));
    }

    #[test]
    fn no_more_waits_than_may() {
        let (logs, written) = logs();
        Line { logs: &logs, gathered: true }.write_all(&[b'x'; MOST + 1]).unwrap();
        assert_eq!(written.try_recv().unwrap().len(), MOST + 1);
    }
}
