//! The internet checksum (RFC 1071). The sum is kept in the machine's byte order and turned at the end, so that the hot loop
//! adds eight bytes at a time and swaps none.

/// A running sum. What is added must begin at even offsets of whatever is summed.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    pub fn add(self, bytes: &[u8]) -> Self {
        let (mut low, mut high) = (self.0, 0u64);
        let mut words = bytes.chunks_exact(16);
        for word in &mut words {
            let (a, b) = word.split_at(8);
            low = carry(low, u64::from_ne_bytes(a.try_into().unwrap_or_default()));
            high = carry(high, u64::from_ne_bytes(b.try_into().unwrap_or_default()));
        }
        let mut sum = carry(low, high);
        for word in words.remainder().chunks(2) {
            let last = [word[0], word.get(1).copied().unwrap_or(0)];
            sum = carry(sum, u64::from(u16::from_ne_bytes(last)));
        }
        Self(sum)
    }

    pub fn add_u16(self, value: u16) -> Self {
        Self(carry(self.0, u64::from(value.to_be())))
    }

    /// Folded to 16 bits, not complemented: what stands in a checksum field whose rest the kernel shall add.
    pub fn partial(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(((sum & 0xffff) + (sum >> 16)) as u16)
    }

    pub fn finish(self) -> u16 {
        !self.partial()
    }
}

fn carry(a: u64, b: u64) -> u64 {
    let (sum, carried) = a.overflowing_add(b);
    sum + u64::from(carried)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |b| u32::from(*b));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn sums_as_the_rfc_does(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            prop_assert_eq!(Sum::default().add(&bytes).finish(), plain(&bytes));
            let cut = (cut * 2).min(bytes.len() & !1);
            prop_assert_eq!(Sum::default().add(&bytes[..cut]).add(&bytes[cut..]).finish(), plain(&bytes));
        }

        #[test]
        fn a_sum_over_its_own_checksum_is_zero(mut bytes in proptest::collection::vec(any::<u8>(), 2..2000)) {
            bytes[..2].fill(0);
            let sum = Sum::default().add(&bytes).finish();
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(Sum::default().add(&bytes).finish(), 0);
        }
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().add(&words).partial(), 0xddf2);
    }
}
