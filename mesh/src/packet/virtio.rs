//! The ten bytes before each packet of a TUN device with offload (`struct virtio_net_hdr`, Linux `virtio_net.h`), in the
//! machine's byte order.

pub const LENGTH: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const ECN: u8 = 0x80;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Virtio {
    /// Where summing begins and how far behind that the sum stands; the pseudo header's part is in the field.
    pub checksum: Option<(u16, u16)>,
    /// Payload of each TCP segment that the packet stands for.
    pub segment: Option<u16>,
    /// Whether these are IPv6's.
    pub v6: bool,
    pub headers: u16,
}

impl Virtio {
    /// None where it says what we have not agreed to with the kernel.
    pub fn decode(bytes: &[u8; LENGTH]) -> Option<Self> {
        let at = |i: usize| u16::from_ne_bytes([bytes[i], bytes[i + 1]]);
        let segment = match bytes[1] & !ECN {
            0 => None,
            TCP4 | TCP6 if at(4) > 0 => Some(at(4)),
            _ => return None,
        };
        let checksum = (bytes[0] & NEEDS_CHECKSUM != 0).then(|| (at(6), at(8)));
        Some(Self { checksum, segment, v6: bytes[1] & !ECN == TCP6, headers: at(2) })
    }

    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        let mut put = |i: usize, value: u16| bytes[i..i + 2].copy_from_slice(&value.to_ne_bytes());
        put(2, self.headers);
        put(4, self.segment.unwrap_or(0));
        let (start, offset) = self.checksum.unwrap_or((0, 0));
        put(6, start);
        put(8, offset);
        bytes[0] = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        bytes[1] = match (self.segment, self.v6) {
            (None, _) => 0,
            (Some(_), false) => TCP4,
            (Some(_), true) => TCP6,
        };
        bytes
    }
}
