//! Answers that stand ready as bytes: the same question gets the same answer until the map changes.

use parking_lot::Mutex;
use std::collections::HashMap;

/// Answers kept; then it begins anew. A pod that asks for names at random costs no more than this.
const MOST: usize = 4096;
/// Bytes of a question that is kept: the longest name with what belongs to it.
const LONGEST: usize = 300;
/// Bytes of the identifier, in which questions that are the same differ.
const ID: usize = 2;
/// The counts of a message's other sections stand before the first question.
const HEADER: usize = 12;

/// Answers over UDP, by questions as they came, without their identifiers.
#[derive(Default)]
pub struct Ready(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Of the map.
    version: u64,
    answers: HashMap<Box<[u8]>, Box<[u8]>>,
}

impl Ready {
    /// Writes the answer to `question` into `answer`, if there is one for this version of the map.
    pub fn write(&self, version: u64, question: &[u8], answer: &mut Vec<u8>) -> bool {
        let Some((id, asked)) = question.split_at_checked(ID) else { return false };
        let kept = self.0.lock();
        let Some(bytes) = kept.answers.get(asked).filter(|_| kept.version == version) else { return false };
        answer.clear();
        answer.extend_from_slice(id);
        answer.extend_from_slice(bytes);
        true
    }

    /// `version`: the map's before it was read for this answer.
    pub fn keep(&self, version: u64, question: &[u8], answer: &[u8]) {
        if question.len() > LONGEST || answer.len() < HEADER || has_options(question) {
            return;
        }
        let mut kept = self.0.lock();
        if kept.version != version || kept.answers.len() >= MOST {
            kept.answers.clear();
            kept.version = version;
        }
        kept.answers.insert(question[ID..].into(), answer[ID..].into());
    }
}

/// Whether it ends in options (RFC 6891) that aren't empty: cookies, for one, are never the same again.
fn has_options(question: &[u8]) -> bool {
    question.get(10..HEADER) != Some(&[0, 0]) && !question.ends_with(&[0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(id: u8, name: u8) -> Vec<u8> {
        [&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[1, name, 0, 0, 1, 0, 1]].concat()
    }

    fn told(ready: &Ready, version: u64, question: &[u8]) -> Option<Vec<u8>> {
        let mut answer = vec![9];
        ready.write(version, question, &mut answer).then_some(answer)
    }

    #[test]
    fn the_same_question_gets_the_same_answer_under_its_own_number() {
        let ready = Ready::default();
        let answer = [&[0, 1, 0x81, 0x80][..], &[7; 20]].concat();
        ready.keep(3, &question(1, b'a'), &answer);
        assert_eq!(told(&ready, 3, &question(1, b'a')), Some(answer.clone()));
        assert_eq!(told(&ready, 3, &question(5, b'a')), Some([&[0, 5][..], &answer[2..]].concat()));
        assert_eq!(told(&ready, 3, &question(1, b'b')), None);
        for short in [&[][..], &[0], &[0, 1]] {
            assert_eq!(told(&ready, 3, short), None);
        }
    }

    #[test]
    fn another_map_has_other_answers() {
        let ready = Ready::default();
        ready.keep(3, &question(1, b'a'), &[1; 20]);
        assert_eq!(told(&ready, 4, &question(1, b'a')), None);
        ready.keep(4, &question(1, b'b'), &[2; 20]);
        assert_eq!(told(&ready, 3, &question(1, b'a')), None, "what was of the old map is gone");
        assert!(told(&ready, 4, &question(1, b'b')).is_some());
    }

    #[test]
    fn what_is_never_asked_again_is_not_kept() {
        let ready = Ready::default();
        let with = |options: &[u8]| {
            let mut question = question(1, b'a');
            question[11] = 1;
            let length = u16::try_from(options.len()).unwrap().to_be_bytes();
            [&question[..], &[0, 0, 41, 4, 208, 0, 0, 0, 0], &length, options].concat()
        };
        ready.keep(1, &with(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]), &[1; 20]);
        assert_eq!(ready.0.lock().answers.len(), 0);
        ready.keep(1, &with(&[]), &[1; 20]);
        assert_eq!(ready.0.lock().answers.len(), 1);
        for name in 0..=MOST {
            let mut question = question(1, b'a');
            question.extend_from_slice(&name.to_be_bytes());
            ready.keep(1, &question, &[1; 20]);
        }
        assert!(ready.0.lock().answers.len() <= MOST);
        ready.keep(1, &vec![0; LONGEST + 1], &[1; 20]);
        assert_eq!(told(&ready, 1, &vec![0; LONGEST + 1]), None);
    }
}
