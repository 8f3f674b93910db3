//! The layer between the TCP stream and the WebSocket layer: checks the size of incoming messages before any
//! of them is kept.
//!
//! It reads only the heads of frames. A frame that is too large is refused by its head. A large message is
//! read only as far as its share of the pod's [`Room`] goes; then it waits. A long frame is passed on in
//! fragments, so that the layer above allocates memory as bytes arrive, not as they are announced. Nothing is
//! handed out beyond the frame that is asked for.
//!
//! It also tells whether data was sent a moment ago, or only read late: only data that arrives after there
//! was nothing to read counts as just sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::room::{Room, Share};
use crate::domain::lifecycle::SatelliteId;

/// The size of a message before authentication, and of one that needs no share of the room: large enough for
/// what an agent says of itself, small enough for all clients at the door at once.
pub const SMALL_BYTES: usize = 64 * 1024;

/// The largest message, whatever is configured: the contract's limit and that of the agents' own core.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A longer frame is passed on in fragments of this size, because the layer above allocates an announced
/// frame at once. A multiple of four, so that the mask continues at its start.
const FRAGMENT_BYTES: u64 = 16 * 1024;

/// The least bytes that a fragment counts as, so that a message of empty fragments reaches the limit.
const FRAGMENT_COST: u64 = 64;

/// Bytes read at once: from a client that sends heartbeats, and from one that is sending a large message.
const BUFFER_BYTES: usize = 1024;
const LARGE_BUFFER_BYTES: usize = 16 * 1024;

/// The longest head of a frame (RFC 6455, 5.2).
const MAX_HEAD: usize = 14;

const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;

/// Why reading has stopped, inside an [`io::Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// A frame or a message exceeds its size.
    #[error("larger than it may be")]
    TooBig,
    /// The message is unfinished, and others wait for the room it takes.
    #[error("unfinished, and others wait for its room")]
    Unfinished,
}

/// The largest frame and the largest message, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// One frame.
    pub frame: usize,
    /// One message, of any number of frames.
    pub message: usize,
}

impl Sizes {
    /// The sizes that hold before authentication.
    fn of_a_stranger(self) -> Sizes {
        Sizes { frame: self.frame.min(SMALL_BYTES), message: self.message.min(SMALL_BYTES) }
    }
}

/// A frame that is being passed on.
struct Frame {
    first: u8,
    mask: Option<[u8; 4]>,
    begun: bool,
    /// Bytes left of the fragment and of the frame behind it.
    in_fragment: u64,
    behind: u64,
}

pub struct Intake<S> {
    stream: S,
    sizes: Sizes,
    full_sizes: Sizes,
    room: Arc<Room>,
    /// The sender, once it is authenticated.
    satellite: Option<SatelliteId>,
    /// The bytes that were read, and how many of them were passed on.
    buffer: Vec<u8>,
    passed: usize,
    /// A head to be passed on next.
    head: ([u8; MAX_HEAD], usize),
    head_passed: usize,
    frame: Option<Frame>,
    /// The message's announced bytes, those passed on, and whether the announcement is complete.
    message: u64,
    passed_on: u64,
    complete: bool,
    /// The share of a large message.
    share: Option<Share>,
    asking: Option<Pin<Box<dyn Future<Output = Option<Share>> + Send>>>,
    pace: Option<Pace>,
    /// There was nothing to read, and then data came.
    was_empty: bool,
    came_nearer: bool,
}

/// Whether a message arrives as fast as it must while others wait.
struct Pace {
    began: Instant,
    look_at: Pin<Box<Sleep>>,
    passed_on: u64,
}

impl<S> Intake<S> {
    /// Wraps a stream of a client that is not authenticated.
    pub fn new(stream: S, sizes: Sizes, room: Arc<Room>) -> Intake<S> {
        Intake {
            stream,
            sizes: sizes.of_a_stranger(),
            full_sizes: sizes,
            room,
            satellite: None,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            passed: 0,
            head: ([0; MAX_HEAD], 0),
            head_passed: 0,
            frame: None,
            message: 0,
            passed_on: 0,
            complete: true,
            share: None,
            asking: None,
            pace: None,
            was_empty: false,
            came_nearer: false,
        }
    }

    /// Notes that the sender is authenticated: from now on the configured sizes hold.
    pub fn is_known(&mut self, satellite: Option<SatelliteId>) {
        (self.sizes, self.satellite) = (self.full_sizes, satellite);
    }

    /// Whether a large message waits for room.
    pub fn waits_for_room(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether a large message has begun and is not complete.
    pub fn has_large_one_coming(&self) -> bool {
        !self.complete && (self.share.is_some() || self.waits_for_room())
    }

    /// Whether data was sent since the last call, as far as that can be known.
    pub fn came_nearer(&mut self) -> bool {
        std::mem::take(&mut self.came_nearer)
    }

    /// Whether a large message arrives too slowly while others wait for its room.
    pub fn is_behind(&self) -> bool {
        let unfinished = self.share.as_ref().filter(|_| !self.complete);
        let Some((share, pace)) = unfinished.zip(self.pace.as_ref()) else { return false };
        let (bytes, time) = share.pace();
        let elapsed = pace.began.elapsed();
        let due = bytes as f64 * elapsed.div_duration_f64(time);
        let came = self.passed_on.saturating_sub(pace.passed_on);
        elapsed >= time && share.is_waited_for() && (came as f64) < due
    }

    /// A caller that asks for the next message is done with the one before: its share is given back.
    pub fn done(&mut self) {
        if self.complete && self.share.take().is_some() {
            self.pace = None;
        }
    }
}

impl<S: AsyncRead + Unpin> Intake<S> {
    /// Reads and discards what comes next; false if the connection has ended.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.passed = self.buffer.len();
        self.poll_fill(cx)
    }

    fn poll_next_part(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let (head, length) = &self.head;
            if self.head_passed < *length {
                let part = &head[self.head_passed..*length];
                let count = part.len().min(into.remaining());
                into.put_slice(&part[..count]);
                self.head_passed += count;
                self.end_frame();
                return Poll::Ready(Ok(()));
            }
            if let Some(asking) = &mut self.asking {
                let given = ready!(asking.as_mut().poll(cx));
                (self.share, self.asking, self.pace) = (given, None, None);
                if self.share.is_none() {
                    return Poll::Ready(Err(io::Error::other(Refused::Unfinished)));
                }
            }
            match &mut self.frame {
                None => {
                    if !ready!(self.poll_head(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(frame) if frame.in_fragment > 0 => {
                    if self.passed == self.buffer.len() && !ready!(self.poll_fill(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Ready(self.pass_on(into));
                }
                Some(frame) => {
                    if let Some(length) = frame.next_of_message() {
                        let passed_on = self.passed_on + length;
                        if let Some(share) = self.share.take() {
                            self.see_to_room(share, passed_on);
                            if self.waits_for_room() {
                                continue;
                            }
                        }
                        self.passed_on = passed_on;
                    }
                    self.begin_fragment();
                }
            }
        }
    }

    fn begin_fragment(&mut self) {
        let Some(frame) = &mut self.frame else { return };
        (self.head, self.head_passed) = (frame.next_fragment(), 0);
    }

    fn pass_on(&mut self, into: &mut ReadBuf<'_>) -> io::Result<()> {
        let Some(frame) = &mut self.frame else { return Ok(()) };
        let part = &self.buffer[self.passed..];
        let in_fragment = usize::try_from(frame.in_fragment).unwrap_or(usize::MAX);
        let count = part.len().min(into.remaining()).min(in_fragment);
        into.put_slice(&part[..count]);
        self.passed += count;
        frame.in_fragment -= count as u64;
        self.end_frame();
        Ok(())
    }

    /// Ends a frame at its last byte, so that the layer above has its message without another read.
    fn end_frame(&mut self) {
        let Some(frame) = &self.frame else { return };
        if self.head_passed < self.head.1 || frame.in_fragment > 0 || frame.behind > 0 {
            return;
        }
        if frame.first & CONTROL == 0 {
            self.complete = frame.first & FINAL != 0;
        }
        self.frame = None;
    }

    /// Reads until a whole head is there, and takes it; false if the connection ended before.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if let Some((frame, length)) = Head::parse(&self.buffer[self.passed..]) {
                self.passed += length;
                self.admit(&frame)?;
                self.frame = Some(Frame::of(frame));
                return Poll::Ready(Ok(true));
            }
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(Ok(false));
            }
        }
    }

    /// Checks the size of a frame, and takes a share for a large message.
    fn admit(&mut self, head: &Head) -> io::Result<()> {
        if head.length > self.sizes.frame as u64 {
            return Err(io::Error::other(Refused::TooBig));
        }
        if head.first & CONTROL != 0 {
            return Ok(());
        }
        if head.first & OPCODE != 0 {
            (self.message, self.passed_on) = (0, 0);
        }
        self.complete = false;
        // The size of a fragmented message is unknown before its last frame.
        let is_whole = head.first & FINAL != 0 && head.first & OPCODE != 0;
        let cost = if is_whole { head.length } else { head.length.max(FRAGMENT_COST) };
        self.message = self.message.saturating_add(cost);
        if self.message > self.sizes.message as u64 {
            return Err(io::Error::other(Refused::TooBig));
        }
        if self.message > SMALL_BYTES as u64 && self.share.is_none() {
            self.share = Some(self.room.share(self.satellite, is_whole.then_some(head.length)));
        }
        Ok(())
    }

    /// Keeps the share if there is room for `bytes` of the message; otherwise waits for it.
    fn see_to_room(&mut self, mut share: Share, bytes: u64) {
        if share.is_enough_for(bytes) || share.try_grow(bytes) {
            self.share = Some(share);
        } else {
            self.asking = Some(Box::pin(share.grow(bytes)));
        }
    }

    /// Reads more behind what is buffered; false if the connection has ended.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.begin_pace();
        let rest = self.buffer.len() - self.passed;
        self.buffer.copy_within(self.passed.., 0);
        self.passed = 0;
        let size = if self.share.is_some() { LARGE_BUFFER_BYTES } else { BUFFER_BYTES };
        if rest == 0 && self.buffer.capacity() > size {
            self.buffer = Vec::with_capacity(size);
        }
        self.buffer.resize(size.max(rest + MAX_HEAD), 0);
        let mut free = ReadBuf::new(&mut self.buffer[rest..]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut free);
        let count = free.filled().len();
        self.buffer.truncate(rest + count);
        match read {
            Poll::Ready(read) => {
                self.came_nearer |= count > 0 && std::mem::take(&mut self.was_empty);
                Poll::Ready(read.map(|()| count > 0))
            }
            Poll::Pending => {
                self.was_empty = true;
                self.poll_unfinished(cx).map(Err)
            }
        }
    }

    fn begin_pace(&mut self) {
        if let Some(share) = self.share.as_ref().filter(|_| !self.complete)
            && self.pace.is_none()
        {
            let began = Instant::now();
            let look_at = Box::pin(sleep_until(began + share.pace().1));
            self.pace = Some(Pace { began, look_at, passed_on: self.passed_on });
        }
    }

    /// An unfinished message may take its time, unless others wait for its room. The pace is not checked
    /// while there is data to read, even of other messages: what must have come by then grows with the time.
    fn poll_unfinished(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(pace) = &mut self.pace {
            ready!(pace.look_at.as_mut().poll(cx));
            if self.is_behind() {
                return Poll::Ready(io::Error::other(Refused::Unfinished));
            }
            self.pace = None;
            self.begin_pace();
        }
        Poll::Pending
    }
}

/// A parsed head of a frame.
struct Head {
    first: u8,
    length: u64,
    mask: Option<[u8; 4]>,
}

impl Head {
    /// Parses the head at the start of these bytes, and returns it with its length; none if it is incomplete.
    fn parse(bytes: &[u8]) -> Option<(Head, usize)> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (length, rest) = match second & !MASKED {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = match second & MASKED {
            0 => (None, rest),
            _ => {
                let (mask, rest) = rest.split_first_chunk()?;
                (Some(*mask), rest)
            }
        };
        Some((Head { first, length, mask }, bytes.len() - rest.len()))
    }
}

impl Frame {
    fn of(head: Head) -> Frame {
        let Head { first, length, mask } = head;
        Frame { first, mask, begun: false, in_fragment: 0, behind: length }
    }

    /// How many bytes of the message the next fragment has; none for a control frame.
    fn next_of_message(&self) -> Option<u64> {
        (self.first & CONTROL == 0).then(|| self.behind.min(FRAGMENT_BYTES))
    }

    /// Begins the next fragment and returns its head. A control frame is never split.
    fn next_fragment(&mut self) -> ([u8; MAX_HEAD], usize) {
        let control = self.first & CONTROL != 0;
        let length = if control { self.behind } else { self.behind.min(FRAGMENT_BYTES) };
        self.behind -= length;
        self.in_fragment = length;
        let mut first = self.first;
        if self.begun {
            first &= !OPCODE;
        }
        if self.behind > 0 {
            first &= !FINAL;
        }
        self.begun = true;
        let mut head = [0; MAX_HEAD];
        head[0] = first;
        let mut end = match u16::try_from(length) {
            Ok(short @ ..126) => {
                head[1] = short as u8;
                2
            }
            Ok(middle) => {
                head[1] = 126;
                head[2..4].copy_from_slice(&middle.to_be_bytes());
                4
            }
            Err(_) => {
                head[1] = 127;
                head[2..10].copy_from_slice(&length.to_be_bytes());
                10
            }
        };
        if let Some(mask) = self.mask {
            head[1] |= MASKED;
            head[end..end + 4].copy_from_slice(&mask);
            end += 4;
        }
        (head, end)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Intake<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_next_part(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Intake<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Write};

    use futures_util::StreamExt;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
    use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

    use super::*;
    use crate::platform::metrics::Metrics;

    const SIZES: Sizes = Sizes { frame: 300_000, message: 300_000 };

    fn room(bytes: u32) -> Arc<Room> {
        Room::new(bytes, bytes, std::time::Duration::from_secs(60), Metrics::new())
    }

    /// A client's frame.
    fn frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(MASKED | short as u8),
            middle @ ..0x1_0000 => {
                frame.push(MASKED | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(MASKED | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Returns a few bytes at a time.
    struct Trickle {
        bytes: Cursor<Vec<u8>>,
        steps: Vec<usize>,
        next: usize,
    }

    impl AsyncRead for Trickle {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let step = self.steps[self.next % self.steps.len()].min(into.remaining());
            self.next += 1;
            let count = Read::read(&mut self.bytes, into.initialize_unfilled_to(step))?;
            into.advance(count);
            Poll::Ready(Ok(()))
        }
    }

    /// What an intake passes on when read in pieces of `at_a_time` bytes, and how it ended.
    fn passed_on(mut intake: Intake<Trickle>, at_a_time: usize) -> (Vec<u8>, Option<Refused>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let (mut all, mut part) = (Vec::new(), vec![0; at_a_time]);
            loop {
                intake.done();
                match intake.read(&mut part).await {
                    Ok(0) => return (all, None),
                    Ok(count) => all.extend(&part[..count]),
                    Err(error) => {
                        let refused = error.get_ref().and_then(|error| error.downcast_ref());
                        return (all, Some(*refused.expect("a refusal")));
                    }
                }
            }
        })
    }

    struct Said(Cursor<Vec<u8>>);

    impl Read for Said {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            Read::read(&mut self.0, into)
        }
    }

    impl Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The messages that the layer above understands.
    fn understood(bytes: Vec<u8>, max_frame: Option<usize>) -> Vec<Message> {
        let config = WebSocketConfig::default().max_frame_size(max_frame);
        let said = Said(Cursor::new(bytes));
        let mut socket = WebSocket::from_raw_socket(said, Role::Server, Some(config));
        let mut messages = Vec::new();
        loop {
            match socket.read() {
                Ok(message) => messages.push(message),
                Err(Error::Protocol(_) | Error::ConnectionClosed | Error::Utf8(_)) => {
                    return messages;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn intake(bytes: Vec<u8>, steps: Vec<usize>) -> Intake<Trickle> {
        let stream = Trickle { bytes: Cursor::new(bytes), steps, next: 0 };
        let mut intake = Intake::new(stream, SIZES, room(1_000_000));
        intake.is_known(None);
        intake
    }

    /// Messages in fragments, with pings in between.
    fn conversation() -> impl Strategy<Value = Vec<u8>> {
        let length = prop_oneof![0usize..300, 0usize..40_000, 60_000usize..140_000];
        let fragments = prop::collection::vec((length, any::<[u8; 4]>(), any::<bool>()), 1..4);
        let message = (prop::bool::ANY, fragments).prop_map(|(text, fragments)| {
            let (last, mut bytes) = (fragments.len() - 1, Vec::new());
            for (n, (length, mask, ping)) in fragments.into_iter().enumerate() {
                let opcode = if n > 0 { 0 } else { if text { 1 } else { 2 } };
                let end = if n == last { FINAL } else { 0 };
                let payload: Vec<u8> = "aé€😀z".bytes().cycle().take(length / 11 * 11).collect();
                bytes.extend(frame(opcode | end, mask, &payload));
                if ping {
                    bytes.extend(frame(FINAL | 9, mask, b"ping"));
                }
            }
            bytes
        });
        prop::collection::vec(message, 1..4).prop_map(|messages| messages.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_understood_is_what_was_said_however_it_comes_and_in_short_frames(
            bytes in conversation(),
            steps in prop::collection::vec(1usize..5_000, 1..6),
            at_a_time in 1usize..2_000,
        ) {
            let expected = understood(bytes.clone(), None);
            let (passed, refused) = passed_on(intake(bytes, steps), at_a_time);
            match refused {
                // Three fragments may exceed the size.
                Some(refused) => prop_assert_eq!(refused, Refused::TooBig),
                None => {
                    let limit = Some(FRAGMENT_BYTES as usize);
                    prop_assert_eq!(understood(passed, limit), expected);
                }
            }
        }

        #[test]
        fn whatever_comes_it_ends(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            steps in prop::collection::vec(1usize..50, 1..6),
        ) {
            let (passed, _) = passed_on(intake(bytes.clone(), steps), 64);
            // Rewriting may make heads longer, never the payload.
            prop_assert!(passed.len() <= bytes.len() + MAX_HEAD * (bytes.len() / 2 + 1));
        }
    }

    #[test]
    fn sizes_hold_to_the_byte_and_a_stranger_is_held_to_less() {
        let of = |known: bool, length: usize| {
            let stream = Trickle {
                bytes: Cursor::new(frame(FINAL | 1, [7; 4], &vec![b'x'; length])),
                steps: vec![4_000],
                next: 0,
            };
            let mut intake = Intake::new(stream, SIZES, room(1_000_000));
            if known {
                intake.is_known(None);
            }
            let (passed, refused) = passed_on(intake, 4_000);
            (refused, !passed.is_empty())
        };
        assert_eq!(of(false, SMALL_BYTES), (None, true));
        assert_eq!(of(false, SMALL_BYTES + 1), (Some(Refused::TooBig), false));
        assert_eq!(of(true, SIZES.message), (None, true));
        assert_eq!(of(true, SIZES.message + 1), (Some(Refused::TooBig), false));
    }

    #[test]
    fn a_message_of_empty_fragments_comes_to_an_end() {
        let count = SIZES.message / FRAGMENT_COST as usize;
        let of = |fragments: usize| {
            let mut bytes = frame(1, [7; 4], &[]);
            bytes.extend((1..fragments).flat_map(|_| frame(0, [7; 4], &[])));
            passed_on(intake(bytes, vec![4_000]), 4_000).1
        };
        assert_eq!(of(count), None);
        assert_eq!(of(count + 1), Some(Refused::TooBig));
    }

    #[tokio::test]
    async fn a_large_message_has_room_for_what_has_come_until_it_is_done_with() {
        const MIB: usize = 1024 * 1024;
        let metrics = Metrics::new();
        let largest = 4 * MIB as u32;
        let room = Room::new(largest, largest, std::time::Duration::from_secs(60), metrics.clone());
        let large = || frame(FINAL | 1, [0; 4], &vec![b'x'; 3 * MIB]);
        // One of them ends with an empty frame.
        let in_two = [frame(1, [0; 4], &vec![b'x'; 150_000]), frame(FINAL, [0; 4], &[])].concat();
        let bytes = [large(), in_two, large()].concat();
        let (mut satellite, pod) = tokio::io::duplex(10 * MIB);
        satellite.write_all(&bytes).await.expect("written");
        let sizes = Sizes { frame: 4 * MIB, message: 4 * MIB };
        let mut intake = Intake::new(pod, sizes, room.clone());
        intake.is_known(None);
        let mut socket = WebSocketStream::from_raw_socket(intake, Role::Server, None).await;
        let given = || metrics.large_message_bytes.get() as usize;
        let mut held = room.share(None, Some(100_000));
        assert!(held.try_grow(1));
        let mut first = socket.next();
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(!room.share(None, Some(1)).try_grow(1), "another share waits");
        drop(held);
        assert!(first.await.is_some_and(|message| message.is_ok()));
        // The length of a fragmented message is unknown.
        for (n, share) in [3 * MIB, 4 * MIB, 3 * MIB].into_iter().enumerate() {
            if n > 0 {
                assert!(socket.next().await.is_some_and(|message| message.is_ok()));
            }
            assert_eq!(given(), share);
            socket.get_mut().done();
            assert_eq!(given(), 0);
        }
    }

    #[tokio::test]
    async fn only_what_comes_after_there_was_nothing_to_read_has_come_just_now() {
        let (mut satellite, pod) = tokio::io::duplex(1_000_000);
        let mut intake = Intake::new(pod, SIZES, room(1_000_000));
        intake.is_known(None);
        let large = frame(FINAL | 1, [0; 4], &vec![b'x'; 200_000]);
        satellite.write_all(&large[..100_000]).await.expect("written");
        let mut part = vec![0; 4_000];
        let mut read = |intake: &mut Intake<_>| {
            let mut into = ReadBuf::new(&mut part);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while Pin::new(&mut *intake).poll_read(&mut cx, &mut into).is_ready() {
                into.clear();
            }
        };
        read(&mut intake);
        assert!(!intake.came_nearer(), "it may have waited there for long");
        satellite.write_all(&large[100_000..150_000]).await.expect("written");
        read(&mut intake);
        assert!(intake.came_nearer());
        read(&mut intake);
        assert!(!intake.came_nearer());
    }
}
