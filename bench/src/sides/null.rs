//! The null server as a side.

use super::end;
use crate::Result;
use crate::client::Target;
use crate::processes::Groups;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

pub struct Null {
    child: Child,
    pub target: Target,
}

impl Null {
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("null").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let target = Target::new(line.trim().parse()?, "", "none")?;
        Ok(Self { child, target })
    }

    pub fn processes(&self) -> Groups {
        Groups(vec![("server".into(), vec![self.child.id()])])
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
