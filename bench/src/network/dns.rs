//! Names that a node answers for its pods, by what they cost it.

use super::stage::Stage;
use crate::Result;
use crate::figures::{Figures, Measured};
use crate::processes::Groups;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const AT_ONCE: u16 = 128;
const DURING: Duration = Duration::from_secs(5);

pub fn measure(stage: &Stage, figures: &mut Figures) -> Result<()> {
    let server = SocketAddr::new(stage.service("kube-system", "kube-dns")?, 53);
    let node = &stage.nodes[0];
    let agent = Groups(vec![("agent".into(), vec![node.agent.pid()])]);
    let cpu = agent.cpu();
    let answers = stage.within_client(|| ask(server))??;
    let cpu = agent.cpu().since(&cpu);
    let spent = cpu.get("agent").copied().unwrap_or(f64::NAN);
    let detail = [("answers_per_second".to_string(), answers / DURING.as_secs_f64())].into();
    figures.add("dns", answers / spent, &Measured { seconds: DURING.as_secs_f64(), cpu, detail });
    Ok(())
}

/// So many questions are open at any time; how many were answered.
fn ask(server: SocketAddr) -> Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut question = question("a.default.svc.cluster.local");
    for id in 0..AT_ONCE {
        send(&socket, &mut question, id)?;
    }
    let (mut answer, mut answers, begun) = ([0; 1500], 0.0, Instant::now());
    while begun.elapsed() < DURING {
        let length = socket.recv(&mut answer)?;
        let good = length > question.len() && answer[3] & 0x0f == 0 && answer[7] > 0;
        if !good {
            return Err("a name was not answered".into());
        }
        answers += 1.0;
        send(&socket, &mut question, u16::from_be_bytes([answer[0], answer[1]]))?;
    }
    Ok(answers)
}

fn send(socket: &UdpSocket, question: &mut [u8], id: u16) -> Result<()> {
    question[..2].copy_from_slice(&id.to_be_bytes());
    socket.send(question)?;
    Ok(())
}

/// RFC 1035: a header that asks for recursion, one question for an A record.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}
