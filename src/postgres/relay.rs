//! A stream between the driver and the server, for what the driver has no way to do: it sends the
//! data that a COPY in a simple query asks for, and it passes over rows that nobody reads, which the
//! driver would hold whole. Nor does the driver get what it would keep without end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::error::ConnectionError;

/// What is to be done with the reply to one message.
#[derive(Debug, Default)]
pub struct ResponseHandling {
    /// The data for `COPY ... FROM STDIN`.
    pub data: Option<mpsc::Receiver<CopyData>>,
    /// Whether nobody reads its rows.
    pub discards_rows: bool,
    /// What the notices in it are about; `None` where nobody reads them.
    pub subject: Option<Arc<str>>,
}

/// A part of the data for a COPY, or its end. Without an end, the COPY fails.
#[derive(Debug)]
pub enum CopyData {
    Part(Vec<u8>),
    End,
}

/// The messages that have no complete reply yet.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Mutex<Replies>>);

#[derive(Debug, Default)]
struct Replies {
    /// In the order in which the messages were sent.
    expected: VecDeque<ResponseHandling>,
    /// The subjects of the notices that were passed on: the driver does not say to which message a
    /// notice belongs, but it reports each, in this order.
    subjects: VecDeque<Option<Arc<str>>>,
}

impl Awaited {
    /// To be called right before the message is sent.
    pub fn push(&self, expected: ResponseHandling) {
        self.with(|replies| replies.expected.push_back(expected));
    }

    /// The subject of the notice that the driver reports.
    pub fn subject_of_notice(&self) -> Option<Arc<str>> {
        self.with(|replies| replies.subjects.pop_front()).flatten().flatten()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Replies) -> T) -> Option<T> {
        self.0.lock().ok().map(|mut replies| change(&mut replies))
    }
}

/// Passes on what the server sends, except for the messages that it takes care of itself.
#[derive(Debug)]
pub struct Relay<S> {
    stream: S,
    awaited: Awaited,
    position: FramePosition,
    copying: Option<Copying>,
    is_logged_in: bool,
}

/// Where in the server's messages the next byte is.
#[derive(Clone, Copy, Debug)]
enum FramePosition {
    /// At the one byte that answers a request for TLS.
    TlsAnswer,
    /// At the type of a message.
    Type,
    /// In the length of a message: the bytes that were read, and how many.
    Length(Incoming, [u8; 4], usize),
    /// So many bytes before the end of a message.
    Body(Incoming, usize),
}

#[derive(Clone, Copy, Debug)]
struct Incoming {
    tag: u8,
    is_passed_on: bool,
}

/// A COPY that reads data from us.
#[derive(Debug)]
struct Copying {
    /// `None` once the last frame has been taken from it.
    data: Option<mpsc::Receiver<CopyData>>,
    frame: Vec<u8>,
    /// How many bytes of the frame the stream has taken.
    written: usize,
}

/// The longest message that the driver gets, which holds it whole. What is passed over may be longer.
const MAX_MESSAGE: usize = 64 << 20;

const COPY_IN_RESPONSE: u8 = b'G';
const DATA_ROW: u8 = b'D';
const ERROR_RESPONSE: u8 = b'E';
const NOTICE_RESPONSE: u8 = b'N';
const PARAMETER_STATUS: u8 = b'S';
const READY_FOR_QUERY: u8 = b'Z';

impl<S> Relay<S> {
    /// `asks_for_tls` says that the first byte answers a request for TLS.
    pub fn new(stream: S, awaited: Awaited, asks_for_tls: bool) -> Relay<S> {
        let position = if asks_for_tls { FramePosition::TlsAnswer } else { FramePosition::Type };
        Relay { stream, awaited, position, copying: None, is_logged_in: false }
    }

    pub fn into_parts(self) -> (S, Awaited) {
        (self.stream, self.awaited)
    }

    /// Moves what is passed on to the front of the bytes, and returns its length.
    fn filter(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut at, mut passed_on) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (length, is_passed_on) = self.advance(rest)?;
            if is_passed_on {
                bytes.copy_within(at..at + length, passed_on);
                passed_on += length;
            }
            at += length;
        }
        Ok(passed_on)
    }

    /// Goes on to the next part of a message. Returns its length in these bytes, of which there is at
    /// least one, and whether it is passed on.
    fn advance(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let first = bytes.first().copied().unwrap_or_default();
        Ok(match self.position {
            FramePosition::TlsAnswer => {
                self.position = FramePosition::Type;
                (1, true)
            }
            FramePosition::Type => {
                let message = self.begin_message(first);
                self.position = FramePosition::Length(message, [0; 4], 0);
                (1, message.is_passed_on)
            }
            FramePosition::Length(message, mut length, read) => {
                if let Some(byte) = length.get_mut(read) {
                    *byte = first;
                }
                self.position = FramePosition::Length(message, length, read + 1);
                if read + 1 == length.len() {
                    let whole = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                    if message.is_passed_on && whole > MAX_MESSAGE {
                        let reason = format!("the server sent a message of {whole} bytes");
                        let error = ConnectionError::Protocol(reason);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                    self.read_to(message, whole.saturating_sub(length.len()));
                }
                (1, message.is_passed_on)
            }
            FramePosition::Body(message, left) => {
                let length = left.min(bytes.len());
                self.read_to(message, left - length);
                (length, message.is_passed_on)
            }
        })
    }

    fn begin_message(&mut self, tag: u8) -> Incoming {
        let discards_rows = || {
            let discards = |replies: &mut Replies| {
                replies.expected.front().is_some_and(|expected| expected.discards_rows)
            };
            self.awaited.with(discards).unwrap_or_default()
        };
        if tag == NOTICE_RESPONSE {
            self.awaited.with(|replies| {
                let expected = replies.expected.front();
                replies.subjects.push_back(expected.and_then(|expected| expected.subject.clone()));
            });
        }
        let is_passed_on = match tag {
            COPY_IN_RESPONSE => false,
            DATA_ROW => !discards_rows(),
            // The driver keeps each under its name. What we ask of one comes with the login.
            PARAMETER_STATUS => !self.is_logged_in,
            _ => true,
        };
        if let (ERROR_RESPONSE, Some(copying)) = (tag, &mut self.copying) {
            // The server reads no more data. Only a frame that has begun is finished.
            copying.data = None;
        }
        Incoming { tag, is_passed_on }
    }

    fn read_to(&mut self, message: Incoming, left: usize) {
        if left > 0 {
            self.position = FramePosition::Body(message, left);
            return;
        }
        self.position = FramePosition::Type;
        match message.tag {
            COPY_IN_RESPONSE => {
                let take = |replies: &mut Replies| replies.expected.front_mut()?.data.take();
                // Without data, it fails.
                let data = self.awaited.with(take).flatten().unwrap_or_else(|| mpsc::channel(1).1);
                self.copying = Some(Copying { data: Some(data), frame: Vec::new(), written: 0 });
            }
            READY_FOR_QUERY => {
                self.is_logged_in = true;
                self.awaited.with(|replies| replies.expected.pop_front());
            }
            _ => {}
        }
    }
}

impl<S: AsyncWrite + Unpin> Relay<S> {
    /// Sends data for the COPY, until it has all of it.
    fn poll_copy(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(copying) = &mut self.copying else { return Poll::Ready(()) };
        // What a connection that breaks has to say is read from it.
        let _ = ready!(copying.poll_send(&mut self.stream, cx));
        self.copying = None;
        Poll::Ready(())
    }
}

impl Copying {
    fn poll_send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.frame.get(self.written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.written += written,
                }
            }
            let Some(data) = &mut self.data else { return Pin::new(stream).poll_flush(cx) };
            self.frame = match ready!(data.poll_recv(cx)) {
                Some(CopyData::Part(part)) => frame(b'd', &part),
                Some(CopyData::End) => {
                    self.data = None;
                    frame(b'c', &[])
                }
                None => {
                    self.data = None;
                    frame(b'f', b"there is no data for it\0")
                }
            };
            self.written = 0;
        }
    }
}

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(5 + body.len());
    frame.push(tag);
    frame.extend_from_slice(&u32::try_from(4 + body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Relay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            let _ = self.poll_copy(cx);
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let read = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let passed_on = self.filter(read)?;
            buffer.set_filled(before + passed_on);
            // Nothing would mean that the connection is closed.
            if passed_on > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Relay<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_copy(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for Relay<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    /// What is passed on of what the server sends, if it arrives in parts of this length.
    fn passed_on(discards_rows: &[bool], mut sent: Vec<u8>, part: usize) -> Vec<u8> {
        let awaited = Awaited::default();
        for &discards_rows in discards_rows {
            awaited.push(ResponseHandling { discards_rows, ..ResponseHandling::default() });
        }
        // No to TLS.
        sent.insert(0, b'N');
        block_on(async {
            let (ours, mut server) = duplex(part);
            let server = tokio::spawn(async move { server.write_all(&sent).await });
            let mut passed_on = Vec::new();
            Relay::new(ours, awaited, true).read_to_end(&mut passed_on).await.unwrap();
            server.await.unwrap().unwrap();
            passed_on.split_off(1)
        })
    }

    #[test]
    fn only_the_rows_of_a_message_that_discards_them_are_passed_over() {
        let [row, done, ready] = [frame(b'D', b"row"), frame(b'C', b""), frame(b'Z', b"I")];
        let (reply, without) = ([&row[..], &done, &ready].concat(), [done, ready].concat());
        for part in [1, 2, 7, 1000] {
            let passed_on = passed_on(&[false, true], reply.repeat(3), part);
            assert_eq!(passed_on, [&reply[..], &without, &reply].concat(), "{part}");
        }
    }

    #[test]
    fn a_message_that_the_driver_would_hold_is_not_longer_than_the_limit() {
        let header = |tag: u8, length: usize| {
            [&[tag][..], &u32::try_from(length).unwrap().to_be_bytes()].concat()
        };
        let filter = |discards_rows, mut header: Vec<u8>| {
            let awaited = Awaited::default();
            awaited.push(ResponseHandling { discards_rows, ..ResponseHandling::default() });
            Relay::new((), awaited, false).filter(&mut header).ok()
        };
        for tag in *b"DEN" {
            assert_eq!(filter(false, header(tag, MAX_MESSAGE)), Some(5));
            assert_eq!(filter(false, header(tag, MAX_MESSAGE + 1)), None);
        }
        assert_eq!(filter(true, header(b'D', MAX_MESSAGE + 1)), Some(0));
    }

    #[test]
    fn parameters_are_passed_on_until_the_login_is_over() {
        let [parameter, ready] = [frame(b'S', b"a\0b\0"), frame(b'Z', b"I")];
        let login = [&parameter[..], &parameter, &ready].concat();
        let mut sent = [&login[..], &parameter, &parameter].concat();
        let passed_on = Relay::new((), Awaited::default(), false).filter(&mut sent).unwrap();
        assert_eq!(passed_on, login.len());
    }

    #[test]
    fn a_notice_is_about_what_the_message_was_whose_reply_it_is_in() {
        let [notice, ready] = [frame(b'N', b"\0"), frame(b'Z', b"I")];
        let awaited = Awaited::default();
        let mut relay = Relay::new((), awaited.clone(), false);
        // At the login.
        relay.filter(&mut notice.clone()).unwrap();
        for subject in [Some("a"), None, Some("b")] {
            awaited.push(ResponseHandling {
                subject: subject.map(Arc::from),
                ..ResponseHandling::default()
            });
        }
        relay.filter(&mut [&notice[..], &notice, &ready].concat().repeat(3)).unwrap();
        let subjects = [None, Some("a"), Some("a"), None, None, Some("b"), Some("b"), None];
        let subjects = subjects.map(|subject| subject.map(Arc::from));
        assert_eq!(subjects.clone().map(|_| awaited.subject_of_notice()), subjects);
    }

    /// What a COPY and the next message send. The server replies after the last of these bytes.
    fn sent(data: Vec<CopyData>, last: &'static [u8]) -> Vec<u8> {
        block_on(async {
            let (ours, mut server) = duplex(64);
            let (sender, receiver) = mpsc::channel(data.len());
            for data in data {
                sender.send(data).await.unwrap();
            }
            drop(sender);
            let awaited = Awaited::default();
            awaited.push(ResponseHandling { data: Some(receiver), ..ResponseHandling::default() });
            let mut relay = Relay::new(ours, awaited, false);
            let server = tokio::spawn(async move {
                let mut received = Vec::new();
                server.write_all(&frame(b'G', b"\0\0\0")).await.unwrap();
                while !received.ends_with(last) {
                    received.push(server.read_u8().await.unwrap());
                }
                server.write_all(&frame(b'E', b"\0")).await.unwrap();
                server.read_to_end(&mut received).await.unwrap();
                received
            });
            let mut reply = [0; 6];
            relay.read_exact(&mut reply).await.unwrap();
            assert_eq!(reply, *frame(b'E', b"\0"));
            relay.write_all(b"next").await.unwrap();
            drop(relay);
            server.await.unwrap()
        })
    }

    #[test]
    fn the_data_of_copy_ends_with_copy_done_and_without_its_end_the_copy_fails() {
        let part = || CopyData::Part(b"1\n".to_vec());
        let framed = frame(b'd', b"1\n");
        let whole = sent(vec![part(), part(), CopyData::End], &[b'c', 0, 0, 0, 4]);
        assert_eq!(whole, [&framed[..], &framed, &frame(b'c', b""), b"next"].concat());
        let cut = sent(vec![part()], b"it\0");
        assert_eq!(
            cut,
            [&framed[..], &frame(b'f', b"there is no data for it\0"), b"next"].concat()
        );
    }

    #[test]
    fn after_an_error_only_the_frame_that_has_begun_is_sent() {
        let long = || CopyData::Part(vec![b'x'; 500]);
        let sent = sent(vec![long(), long(), CopyData::End], b"xxx");
        assert_eq!(sent, [&frame(b'd', &[b'x'; 500])[..], b"next"].concat());
    }
}
