//! The bytes that the socket has not taken: whole frames and messages, in the order in which they are written.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use lapin::protocol::constants::FRAME_END;

use crate::proto::{encode, frame::OVERHEAD};

/// The bytes that the socket has not taken. Parts of large bodies are not copied into it.
///
/// `length` is always the sum of the lengths of `pieces` and `tail`.
#[derive(Debug, Default)]
pub(super) struct Output {
    pieces: VecDeque<Bytes>,
    /// The bytes after the pieces.
    tail: BytesMut,
    length: usize,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a copy.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Appends a message, with its body in as many frames as it needs, and returns how many bytes it has. The frames
    /// follow each other directly: on the same channel no other frame may come between them (§4.2.6).
    pub(super) fn append_message(
        &mut self,
        channel: u16,
        head: &[u8],
        body: &Bytes,
        frame_max: usize,
    ) -> usize {
        let before = self.length;
        self.tail.reserve(RESERVE);
        self.append(head);
        let most = frame_max.saturating_sub(OVERHEAD).max(1);
        for from in (0..body.len()).step_by(most) {
            let part = from..body.len().min(from + most);
            self.append(&encode::body_head(channel, part.len()));
            if part.len() < SHARED {
                self.append(body.get(part).unwrap_or_default());
            } else {
                self.length += part.len();
                self.pieces.push_back(self.tail.split().freeze());
                self.pieces.push_back(body.slice(part));
            }
            self.append(&[FRAME_END]);
        }
        self.length - before
    }

    /// Fills these with the next bytes; says how many slices were filled.
    pub(super) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let all = self.pieces.iter().map(|piece| &**piece).chain([&*self.tail]);
        let mut count = 0;
        for (place, piece) in into.iter_mut().zip(all.filter(|piece| !piece.is_empty())) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// The socket took so many bytes.
    pub(super) fn written(&mut self, mut count: usize) {
        count = count.min(self.length);
        self.length -= count;
        while let Some(piece) = self.pieces.front_mut() {
            let some = count.min(piece.len());
            piece.advance(some);
            count -= some;
            if !piece.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.tail.advance(count.min(self.tail.len()));
    }
}

/// Parts of a body that have at least so many bytes are not copied, but cost a piece of their own.
const SHARED: usize = 16 * 1024;

/// Room, in bytes, that is made at once, so that the tail does not grow in small steps.
const RESERVE: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_frames_of_the_agreed_size(
            messages in vec((0..3 * SHARED, 0..50usize), 0..8),
            frame_max in 4096..2 * SHARED,
            takes in vec(1..40_000usize, 1..20),
        ) {
            let mut output = Output::default();
            let (mut expected, mut written) = (Vec::new(), Vec::new());
            let mut takes = takes.iter().cycle();
            for (body, other) in messages {
                let body: Bytes = (0..body).map(|at| at as u8).collect();
                expected.extend_from_slice(b"head");
                for part in body.chunks(frame_max - 8) {
                    expected.extend_from_slice(&[3, 0, 9]);
                    expected.extend_from_slice(&(part.len() as u32).to_be_bytes());
                    expected.extend_from_slice(part);
                    expected.push(0xce);
                }
                expected.extend(vec![b'o'; other]);
                output.append_message(9, b"head", &body, frame_max);
                output.append(&vec![b'o'; other]);
                write(&mut output, *takes.next().unwrap(), &mut written);
            }
            while !output.is_empty() {
                write(&mut output, *takes.next().unwrap(), &mut written);
            }
            prop_assert_eq!(written, expected);
        }
    }

    fn write(output: &mut Output, most: usize, written: &mut Vec<u8>) {
        let mut slices = [IoSlice::new(&[]); 3];
        let count = output.slices(&mut slices);
        let mut bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).collect();
        bytes.truncate(most);
        written.extend_from_slice(&bytes);
        output.written(bytes.len());
    }
}
