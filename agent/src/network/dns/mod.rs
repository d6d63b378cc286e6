//! The cluster's name server on this node, at the address of Service `kube-dns`, and for pods in the host's network at the
//! namespace's end of the cable.
//!
//! The cluster's names are answered at once, from the network map in memory, also while the server is away; all others are
//! asked of the host's resolvers, or of those that the cluster's users chose, each by a task of its own.

mod chosen;
mod ready;
mod upstream;
mod zone;

use super::map::{Known, Map};
use super::{PodNetwork, namespace};
use chosen::Chosen;
use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use rand::seq::SliceRandom;
use ready::Ready;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use upstream::{Told, Upstream};
use zone::Answer;

/// Questions that are asked elsewhere at once, as CoreDNS has it.
const ASKED_AT_ONCE: usize = 1000;
const CONNECTIONS: usize = 1000;
/// A connection that says nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(10);
/// The largest answer over UDP: what passes every path in one packet.
const LARGEST: u16 = 1232;
/// Names that follow one another by Services of type ExternalName.
const ALIASES: usize = 8;

/// Answers for names. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    map: Arc<Known>,
    /// How often the map has changed.
    version: watch::Receiver<u64>,
    ready: Ready,
    upstream: Upstream,
    chosen: Chosen,
    asking: Semaphore,
    connections: Arc<Semaphore>,
}

/// What becomes of a question.
enum Reply {
    Now(Vec<u8>),
    /// The same to whoever asks it, until the map changes.
    Same(Vec<u8>),
    /// The cluster's part of the answer, and who else is asked.
    Later(Box<Asked>),
    /// It is no question.
    Nothing,
}

struct Asked {
    answer: Message,
    limit: u16,
    name: Name,
    kind: RecordType,
}

impl Server {
    /// `resolv_conf`: the host's.
    pub fn new(map: Arc<Known>, resolv_conf: PathBuf) -> Self {
        let upstream = Upstream::new(resolv_conf);
        let (asking, connections) = (Semaphore::new(ASKED_AT_ONCE), Arc::new(Semaphore::new(CONNECTIONS)));
        let version = map.changes();
        let (ready, chosen) = (Ready::default(), Chosen::default());
        Self(Arc::new(Inner { map, version, ready, upstream, chosen, asking, connections }))
    }

    /// Answers at the address of the Service as long as that stays the same and the namespace lives; then again. Never
    /// returns.
    pub async fn serve(self, network: Arc<PodNetwork>) {
        loop {
            let (at, changed) = network.places(|answered| answered.dns).await;
            self.0.chosen.ask_from(at.netns.clone(), [at.service, at.from_host].map(SocketAddr::from));
            let mut serving = JoinSet::new();
            let listening = [at.service, at.from_host].into_iter().try_for_each(|address| {
                let (udp, tcp) = (namespace::bind(&at.netns, address.into())?, namespace::listen(&at.netns, address)?);
                serving.spawn(self.clone().datagrams(Arc::new(udp)));
                serving.spawn(self.clone().connections(tcp));
                Ok::<_, io::Error>(())
            });
            if let Err(error) = listening {
                tracing::warn!(address = %at.service, %error, "names can't be answered yet");
                tokio::time::sleep(namespace::RETRY).await;
                continue;
            }
            changed.await;
        }
    }

    async fn datagrams(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut answer = Vec::with_capacity(usize::from(LARGEST));
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // What an ICMP message says of an earlier answer.
                Err(_) => continue,
            };
            let question = &buffer[..length];
            let version = *self.0.version.borrow();
            if self.0.ready.write(version, question, &mut answer) {
                drop(socket.send_to(&answer, from).await);
                continue;
            }
            match self.reply(question, LARGEST) {
                Reply::Now(answer) => drop(socket.send_to(&answer, from).await),
                Reply::Same(answer) => {
                    self.0.ready.keep(version, question, &answer);
                    drop(socket.send_to(&answer, from).await);
                }
                Reply::Later(asked) => {
                    let (this, socket) = (self.clone(), socket.clone());
                    tokio::spawn(async move { socket.send_to(&this.ask(*asked).await, from).await });
                }
                Reply::Nothing => {}
            }
        }
    }

    async fn connections(self, listener: TcpListener) {
        let answer = |client| {
            let this = self.clone();
            async move { drop(this.connection(client).await) }
        };
        namespace::accept(listener, self.0.connections.clone(), "a connection for names", answer).await;
    }

    /// RFC 7766: questions one after the other, each behind its length.
    async fn connection(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        loop {
            let length = timeout(IDLE, client.read_u16()).await??;
            let mut question = vec![0; usize::from(length)];
            timeout(IDLE, client.read_exact(&mut question)).await??;
            let answer = match self.reply(&question, u16::MAX) {
                Reply::Now(answer) | Reply::Same(answer) => answer,
                Reply::Later(asked) => self.ask(*asked).await,
                Reply::Nothing => return Ok(()),
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            timeout(IDLE, client.write_all(&framed)).await??;
        }
    }

    fn reply(&self, question: &[u8], largest: u16) -> Reply {
        let Ok(message) = Message::from_vec(question) else { return Reply::Nothing };
        if message.metadata.message_type != MessageType::Query {
            return Reply::Nothing;
        }
        let mut answer = Message::new(message.metadata.id, MessageType::Response, message.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&message.metadata);
        answer.metadata.recursion_available = true;
        let said = message.edns.as_ref().map_or(512, |edns| edns.max_payload().max(512));
        let limit = if largest == u16::MAX { largest } else { said.min(largest) };
        if message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LARGEST);
            answer.edns = Some(edns);
        }
        let [query] = &message.queries[..] else {
            return refuse(answer, ResponseCode::FormErr, limit);
        };
        answer.add_query(query.clone());
        if message.metadata.op_code != OpCode::Query || query.query_class() != DNSClass::IN {
            return refuse(answer, ResponseCode::NotImp, limit);
        }
        let kind = query.query_type();
        let left = self.0.map.read(|map| fill(map, &mut answer, query.name(), kind));
        match left {
            // Several answers stand in another order each time.
            None if answer.answers.len() > 1 => Reply::Now(written(&answer, limit)),
            None => Reply::Same(written(&answer, limit)),
            Some(name) => Reply::Later(Box::new(Asked { answer, limit, name, kind })),
        }
    }

    async fn ask(&self, asked: Asked) -> Vec<u8> {
        let Asked { mut answer, limit, name, kind } = asked;
        let told = match self.0.asking.try_acquire() {
            Ok(_place) => self.ask_elsewhere(name, kind).await,
            Err(_) => Told::failed(),
        };
        answer.metadata.response_code = told.code;
        answer.add_answers(told.answers);
        answer.authorities.extend(told.authority);
        written(&answer, limit)
    }

    async fn ask_elsewhere(&self, name: Name, kind: RecordType) -> Told {
        let chosen = self.0.map.read(|map| map.name_servers.clone());
        match chosen.and_then(|chosen| self.0.chosen.of(&chosen, &name)) {
            None => self.0.upstream.ask(name, kind).await,
            Some(Some(resolver)) => Told::by(&resolver, name, kind).await,
            Some(None) => Told::failed(),
        }
    }
}

fn refuse(mut answer: Message, code: ResponseCode, limit: u16) -> Reply {
    answer.metadata.response_code = code;
    Reply::Now(written(&answer, limit))
}

/// Fills in what the map says; the name that has to be asked elsewhere, if there is one.
fn fill(map: &Map, answer: &mut Message, name: &Name, kind: RecordType) -> Option<Name> {
    let mut name = name.clone();
    for _ in 0..ALIASES {
        match zone::answer(map, &name, kind) {
            Answer::Foreign => return Some(name),
            Answer::Alias { alias, target } => {
                answer.metadata.authoritative = true;
                answer.add_answer(alias);
                if kind == RecordType::CNAME {
                    return None;
                }
                name = target;
            }
            Answer::Found { mut answers, additionals } => {
                answer.metadata.authoritative = true;
                if answers.is_empty() {
                    answer.authorities.extend(zone::authority());
                }
                answers.shuffle(&mut rand::rng());
                answer.add_answers(answers);
                answer.add_additionals(additionals);
                return None;
            }
            Answer::Missing => {
                answer.metadata.authoritative = true;
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.extend(zone::authority());
                return None;
            }
        }
    }
    answer.metadata.response_code = ResponseCode::ServFail;
    None
}

/// Cut, and marked so, where it is larger than `limit`.
fn written(answer: &Message, limit: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit);
    if let Err(error) = answer.emit(&mut encoder) {
        tracing::warn!(%error, "an answer could not be written");
        let failed = Message::error_msg(answer.metadata.id, OpCode::Query, ResponseCode::ServFail);
        return failed.to_vec().unwrap_or_default();
    }
    bytes
}
