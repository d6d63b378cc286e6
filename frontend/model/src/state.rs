//! How well something is, and the sentence that says so.

use crate::words::{Word, t};

/// Ordered by how much attention it needs, least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Finished or scaled to nothing, on purpose.
    Idle,
    /// As wanted, on fresh evidence.
    Good,
    /// On its way, within its deadline.
    Progressing,
    /// There is no fresh evidence. Never shown as good.
    #[default]
    Unknown,
    /// Serves, but less than wanted.
    Degraded,
    /// Does not do its job.
    Failing,
}

impl State {
    pub fn word(self) -> &'static str {
        t(match self {
            Self::Idle => Word::StateIdle,
            Self::Good => Word::StateGood,
            Self::Progressing => Word::StateProgressing,
            Self::Unknown => Word::StateUnknown,
            Self::Degraded => Word::StateDegraded,
            Self::Failing => Word::StateFailing,
        })
    }

    /// The class that gives it colour and shape.
    pub fn class(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Good => "good",
            Self::Progressing => "progressing",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

/// What is the case, in one sentence; where it isn't well, what shows it and what to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sentence {
    pub state: State,
    pub text: String,
    /// What it rests on, quoted from the object: a message, an exit code.
    pub evidence: Option<String>,
    pub next: Option<Next>,
}

/// The next step: in words, and as something to press where the page can do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub text: String,
    pub action: Option<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The last lines of the container that died.
    PreviousLogs,
    Logs,
    EditYaml,
    ChangeImage,
    RollBack,
    Resume,
    AddNode,
    ShowNodes,
    ShowPods,
    Uncordon,
}

impl Sentence {
    pub fn new(state: State, text: impl Into<String>) -> Self {
        Self { state, text: text.into(), ..Self::default() }
    }
    pub fn evidence(mut self, evidence: impl Into<String>) -> Self {
        let evidence = evidence.into();
        self.evidence = (!evidence.is_empty()).then_some(evidence);
        self
    }
    pub fn next(mut self, word: Word, action: Option<Action>) -> Self {
        self.next = Some(Next { text: t(word).into(), action });
        self
    }
}
