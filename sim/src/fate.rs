//! What befalls a replica's statements on their way to the database and back.

use crate::dice::Dice;
use longshore_server::store::simulated::{Fate, Fortune, Outcome, Statement};
use parking_lot::Mutex;
use std::time::Duration;

/// How a replica's way to the database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Good,
    /// Every statement takes so many milliseconds, give or take half.
    Slow(u64),
    /// In so many of a hundred flushes the connection breaks: before, after or long before the commit.
    Breaks(u32),
    /// Nothing arrives, and that is known after so many milliseconds.
    Away(u64),
    /// Nothing ever arrives from a process that is no more.
    Dead,
}

/// The fate of one process.
pub struct Line {
    state: Mutex<(Dice, Way)>,
}

impl Line {
    pub fn new(dice: Dice, way: Way) -> Self {
        Self { state: Mutex::new((dice, way)) }
    }

    /// The dead stay dead.
    pub fn become_so(&self, way: Way) {
        let mut state = self.state.lock();
        if state.1 != Way::Dead {
            state.1 = way;
        }
    }
}

impl Fate for Line {
    fn befall(&self, statement: Statement) -> Fortune {
        let (dice, way) = &mut *self.state.lock();
        let quick = |dice: &mut Dice| Duration::from_micros(dice.between(200, 3000));
        let (there, back) = (quick(dice), quick(dice));
        match *way {
            Way::Good => Fortune { there, outcome: Outcome::Done, back },
            Way::Slow(millis) => Fortune {
                there: dice.millis(millis / 4, millis * 3 / 4),
                outcome: Outcome::Done,
                back: dice.millis(millis / 4, millis * 3 / 4),
            },
            Way::Breaks(percent) if statement == Statement::Flush && dice.percent(percent) => {
                let late = Outcome::Late(dice.millis(1, 4000));
                let outcome =
                    dice.weighted(&[(3, Outcome::LostBefore), (3, Outcome::LostAfter), (2, late), (1, Outcome::Away)]);
                Fortune { there, outcome, back }
            }
            Way::Breaks(percent) if dice.percent(percent / 2) => {
                Fortune { there, outcome: dice.weighted(&[(1, Outcome::Away), (1, Outcome::LostAfter)]), back }
            }
            Way::Breaks(_) => Fortune { there, outcome: Outcome::Done, back },
            Way::Away(millis) => {
                let silent = Duration::from_millis(millis);
                let lost = statement == Statement::Flush && dice.percent(50);
                let outcome = if lost { Outcome::LostBefore } else { Outcome::Away };
                Fortune { there: silent, outcome, back: Duration::ZERO }
            }
            Way::Dead => Fortune { there: Duration::from_secs(3600), outcome: Outcome::Away, back: Duration::ZERO },
        }
    }
}
