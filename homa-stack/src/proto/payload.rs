//! Bytes of outgoing messages.

use bytes::Bytes;

/// Longest head that a [`Payload`] can hold.
pub const MAX_HEAD: usize = 48;

/// The bytes of an outgoing message: a short head held inline, then a shared body.
///
/// Kept until the peer has the message, so it must be cheap to hold: the body is reference-counted and never copied
/// before it goes into packets. Short messages fit the head and need no allocation at all.
#[derive(Clone, Debug)]
pub struct Payload {
    head: [u8; MAX_HEAD],
    head_len: u8,
    body: Bytes,
}

impl Payload {
    /// A message of `head` followed by `body`.
    ///
    /// # Panics
    ///
    /// If `head` is longer than [`MAX_HEAD`].
    pub fn with_head(head: &[u8], body: Bytes) -> Self {
        assert!(head.len() <= MAX_HEAD, "a head of {} bytes, most is {MAX_HEAD}", head.len());
        let mut inline = [0; MAX_HEAD];
        inline[..head.len()].copy_from_slice(head);
        Self { head: inline, head_len: head.len() as u8, body }
    }

    /// No message: has no bytes and keeps none.
    pub(crate) const fn none() -> Self {
        Self { head: [0; MAX_HEAD], head_len: 0, body: Bytes::new() }
    }

    /// Lets go of the bytes.
    #[inline]
    pub(crate) fn clear(&mut self) {
        (self.head_len, self.body) = (0, Bytes::new());
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        usize::from(self.head_len) + self.body.len()
    }

    /// True if there are no bytes; such a message can't be sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes `start..end`: those in the head, those in the body.
    ///
    /// # Panics
    ///
    /// If the message ends before `end`, or `end` is before `start`.
    pub fn parts(&self, start: usize, end: usize) -> [&[u8]; 2] {
        let head = &self.head[..usize::from(self.head_len)];
        let (a, b) = (start.min(head.len()), end.min(head.len()));
        [&head[a..b], &self.body[start.max(head.len()) - head.len()..end.max(head.len()) - head.len()]]
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If the message ends before `out` is full.
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) {
        let head = &self.head[..usize::from(self.head_len)];
        let from_head = head.len().saturating_sub(offset).min(out.len());
        let (first, rest) = out.split_at_mut(from_head);
        if from_head > 0 {
            first.copy_from_slice(&head[offset..offset + from_head]);
        }
        if !rest.is_empty() {
            let start = offset + from_head - head.len();
            rest.copy_from_slice(&self.body[start..start + rest.len()]);
        }
    }
}

impl From<Bytes> for Payload {
    fn from(body: Bytes) -> Self {
        Self { head: [0; MAX_HEAD], head_len: 0, body }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Bytes::from(bytes))
    }
}

/// A copy: inline if it fits the head.
impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() <= MAX_HEAD {
            Self::with_head(bytes, Bytes::new())
        } else {
            Self::from(Bytes::copy_from_slice(bytes))
        }
    }
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(&bytes[..])
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

/// What was received is sent on, without a copy if it lies in one piece.
impl From<super::pool::Body> for Payload {
    fn from(body: super::pool::Body) -> Self {
        Self::from(Bytes::from(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_head_and_body_can_be_copied() {
        let whole: Vec<u8> = (0..100).collect();
        for head in [0, 1, 12, 48] {
            let payload = Payload::with_head(&whole[..head], Bytes::copy_from_slice(&whole[head..]));
            assert_eq!(payload.len(), 100);
            for start in 0..100 {
                for end in start..100 {
                    let mut out = vec![0; end - start];
                    payload.copy_to(start, &mut out);
                    assert_eq!(out, whole[start..end], "head {head}, bytes {start}..{end}");
                    assert_eq!(payload.parts(start, end).concat(), out, "head {head}, bytes {start}..{end}");
                }
            }
        }
    }
}
