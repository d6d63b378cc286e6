use super::headers::DICTIONARY;
use super::*;
use flate2::{Compress, Compression, FlushCompress};
use proptest::collection::vec;
use proptest::prelude::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    Headers(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
}

/// All frames of `bytes`, which come in pieces of `size`; pieces of a data frame are put together again.
fn decode(bytes: &[u8], size: usize) -> Result<Vec<Frame>, Error> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::<Frame>::new());
    for piece in bytes.chunks(size.max(1)) {
        decoder.push(piece);
        while let Some(frame) = decoder.frame()? {
            match (frames.last_mut(), &frame) {
                (Some(Frame::Data { stream, fin, bytes }), Frame::Data { stream: same, fin: last, bytes: more })
                    if stream == same && !*fin =>
                {
                    *bytes = [&bytes[..], more].concat().into();
                    *fin = *last;
                }
                _ => frames.push(frame),
            }
        }
    }
    Ok(frames)
}

/// As zlib packs for Go's spdystream: with the dictionary, flushed after each block.
struct Zlib(Compress);

impl Zlib {
    fn new() -> Self {
        let mut packer = Compress::new(Compression::best(), true);
        packer.set_dictionary(DICTIONARY).unwrap();
        Self(packer)
    }

    fn pack(&mut self, block: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(block.len() + 1024);
        self.0.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
        out
    }
}

fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = (pairs.len() as u32).to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        block.extend((text.len() as u32).to_be_bytes());
        block.extend(text.as_bytes());
    }
    block
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, 3];
    out.extend(kind.to_be_bytes());
    out.push(flags);
    out.extend(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend(body);
    out
}

#[test]
fn the_dictionary_is_the_specifications() {
    // The checksum by which zlib names it in each packed stream.
    let (mut a, mut b) = (1u32, 0u32);
    for byte in DICTIONARY {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    assert_eq!(b << 16 | a, 0xe3c6_a7c2);
}

#[test]
fn streams_that_zlib_packed_are_read() {
    let mut zlib = Zlib::new();
    let pairs = [("streamtype", "error"), ("port", "8080"), ("requestid", "0")];
    let (mut bytes, mut want) = (Vec::new(), Vec::new());
    for stream in [1u32, 3, 5] {
        let mut body = stream.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, 0]);
        body.extend(zlib.pack(&block(&pairs)));
        bytes.extend(control(SYN_STREAM, if stream == 5 { FIN } else { 0 }, &body));
        want.push(Frame::SynStream { stream, fin: stream == 5, headers: headers(&pairs) });
    }
    for size in [1, 7, 4096] {
        assert_eq!(decode(&bytes, size).unwrap(), want);
    }
    let Frame::SynStream { headers, .. } = &want[0] else { unreachable!() };
    assert_eq!((headers.get("streamType"), headers.get("other")), ("error", ""));
}

#[test]
fn unknown_frames_are_passed_over_and_other_versions_end_it() {
    let ping = control(PING, 0, &7u32.to_be_bytes());
    let unknown = [control(10, 0, &[1; 300]), control(5, 0, &[0; 70_000]), ping.clone()].concat();
    assert_eq!(decode(&unknown, 100).unwrap(), [Frame::Ping { id: 7 }]);
    let mut other = ping;
    other[1] = 2;
    assert_eq!(decode(&other, 100), Err(Error::Version(2)));
}

#[test]
fn what_is_too_long_is_refused_before_it_is_kept() {
    let long = [&[0x80, 3, 0, 1, 0][..], &(LONGEST_CONTROL as u32 + 1).to_be_bytes()[1..]].concat();
    assert_eq!(decode(&long, 100), Err(Error::TooLong(LONGEST_CONTROL + 1)));
    // A few hundred bytes that unpack to a megabyte.
    let bomb = Zlib::new().pack(&vec![b'a'; 1 << 20]);
    assert!(bomb.len() < 8 * 1024);
    let body = [&[0, 0, 0, 1][..], &bomb].concat();
    assert_eq!(decode(&control(SYN_REPLY, 0, &body), 100), Err(Error::HeadersTooLong));
}

#[test]
fn headers_that_lie_about_their_lengths_are_refused() {
    let lies: [&[u8]; 3] = [b"\xff\xff\xff\xff", b"\0\0\0\x01\xff\xff\xff\xff", b"\0\0\0\0x"];
    for lie in lies {
        let packed = Zlib::new().pack(lie);
        let frame = control(SYN_REPLY, 0, &[&[0, 0, 0, 1][..], &packed].concat());
        assert!(matches!(decode(&frame, 99), Err(Error::Malformed(_))), "{lie:?}");
    }
    assert_eq!(decode(&control(SYN_REPLY, 0, &[0, 0, 0, 1, 9, 9, 9, 9]), 99), Err(Error::Packing));
    assert!(decode(&control(RST_STREAM, 0, &[0, 0, 0, 1]), 99).is_err());
}

#[test]
fn a_long_data_frame_is_never_kept_whole() {
    let mut decoder = Decoder::default();
    decoder.push(&[0, 0, 0, 9, FIN, 0xff, 0xff, 0xff]);
    let (mut seen, mut last) = (0, false);
    while seen < LONGEST_DATA {
        decoder.push(&vec![0; 1000.min(LONGEST_DATA - seen)]);
        while let Some(frame) = decoder.frame().unwrap() {
            let Frame::Data { stream: 9, fin, bytes } = frame else { panic!("{frame:?}") };
            assert!(!last && bytes.len() <= 1000);
            (seen, last) = (seen + bytes.len(), fin);
        }
    }
    assert!(last);
}

fn any_headers() -> impl Strategy<Value = Headers> {
    vec(("[a-z:-]{0,12}", ".{0,40}"), 0..6).prop_map(Headers)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 0..=u32::MAX >> 1;
    prop_oneof![
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::SynStream {
            stream,
            fin,
            headers
        }),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (stream.clone(), vec(any::<u8>(), 0..200)).prop_map(|(stream, bytes)| Frame::Data {
            stream,
            fin: true,
            bytes: bytes.into()
        }),
        (stream.clone(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status: Reset(status) }),
        any::<u32>().prop_map(|id| Frame::Ping { id }),
        (stream.clone(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (stream.clone(), stream).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        vec((0..1u32 << 24, any::<u32>()), 0..5).prop_map(Frame::Settings),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written(frames in vec(any_frame(), 0..12), size in 1usize..300) {
        let mut encoder = Encoder::default();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame)).collect();
        prop_assert_eq!(decode(&bytes, size).unwrap(), frames);
    }

    #[test]
    fn hostile_bytes_never_panic_and_are_never_hoarded(
        frames in vec(any_frame(), 0..6), noise in vec((any::<u16>(), any::<u8>()), 0..20), size in 1usize..300
    ) {
        let mut encoder = Encoder::default();
        let mut bytes: Vec<u8> = frames.iter().flat_map(|frame| encoder.encode(frame)).collect();
        bytes.extend(noise.iter().map(|(_, byte)| byte));
        for (place, byte) in noise {
            let length = bytes.len();
            bytes[usize::from(place) % length] ^= byte;
        }
        let _ = decode(&bytes, size);
    }
}
