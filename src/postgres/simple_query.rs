//! The simple query protocol: sends statements and collects what the server answers.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_postgres::{
    CancelToken, Client, Error, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream,
};

use super::notices::Notices;
use super::relay::{Awaited, CopyData, ResponseHandling};
use super::result::ResultSet;
use super::server_error::ServerError;
use super::session::{Message, Response};

/// The most of the results of a query that is kept, in bytes: enough for a history of 200,000 migrations.
pub(super) const MAX_ROWS_BYTES: usize = 64 << 20;

/// How much of a COPY's data is on its way at once.
const COPY_PART: usize = 64 << 10;

/// Sends messages, and tells the relay below the driver what to do with their replies.
pub(super) struct Sender {
    client: Client,
    pub(super) awaited: Awaited,
    pub(super) notices: Arc<Mutex<Notices>>,
}

impl Sender {
    pub(super) fn new(client: Client, awaited: Awaited) -> Sender {
        Sender { client, awaited, notices: Arc::default() }
    }

    pub(super) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Only sends: the reply is in the stream.
    async fn send(
        &self,
        sql: &str,
        expected: ResponseHandling,
    ) -> Result<SimpleQueryStream, Error> {
        let subject = self.notices.lock().ok().and_then(|notices| notices.sending());
        self.awaited.push(ResponseHandling { subject, ..expected });
        self.client.simple_query_raw(sql).await
    }

    /// The rows of each statement; `None` if they are too many.
    pub(super) async fn query_rows(&self, sql: &str) -> Result<Option<Vec<ResultSet>>, Error> {
        let mut results: Vec<ResultSet> = Vec::new();
        let mut length = 0_usize;
        let mut stream = pin!(self.send(sql, ResponseHandling::default()).await?);
        while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
            match message? {
                SimpleQueryMessage::RowDescription(columns) => {
                    let columns: Vec<_> =
                        columns.iter().map(|column| column.name().to_owned()).collect();
                    let names: usize = columns.iter().map(String::len).sum();
                    // Texts, and the values that hold them.
                    length += names + size_of_val(columns.as_slice()) + size_of::<ResultSet>();
                    results.push(ResultSet { columns, rows: Vec::new() });
                }
                SimpleQueryMessage::Row(row) => {
                    let row = values(&row);
                    let bytes: usize = row.iter().flatten().map(String::len).sum();
                    length += bytes + size_of_val(row.as_slice()) + size_of_val(&row);
                    if let Some(last) = results.last_mut() {
                        last.rows.push(row);
                    }
                }
                _ => {}
            }
            if length > MAX_ROWS_BYTES {
                return Ok(None);
            }
        }
        Ok(Some(results))
    }

    /// Sends messages one by one, each after the response to the one before. After an error, only
    /// the last one is sent.
    pub(super) async fn send_one_by_one(
        &self,
        messages: &[Message<'_>],
        received: &ReceivedReplies,
    ) -> Result<(), Error> {
        let mut failed = false;
        for (index, message) in messages.iter().enumerate() {
            let is_last = index + 1 == messages.len();
            if failed && !is_last {
                received.begin();
                received.end();
                continue;
            }
            self.exchange(message, received).await?;
            failed |= received.last_failed();
        }
        Ok(())
    }

    /// Sends messages without waiting, behind those that are on their way.
    pub(super) async fn send_all(&self, messages: &[Message<'_>], on_their_way: &OnTheirWay) {
        for Message { sql, discards_rows, .. } in messages {
            let expected =
                ResponseHandling { discards_rows: *discards_rows, ..ResponseHandling::default() };
            let reply = self.send(sql, expected).await.map(Box::pin);
            on_their_way.0.borrow_mut().push_back(reply);
        }
    }

    /// Sends a message and its data, and waits for the response.
    async fn exchange(
        &self,
        message: &Message<'_>,
        received: &ReceivedReplies,
    ) -> Result<(), Error> {
        let Message { sql, data, discards_rows } = *message;
        let (sender, receiver) = mpsc::channel(1);
        let receiver = data.is_some().then_some(receiver);
        let expected = ResponseHandling { data: receiver, discards_rows, subject: None };
        let on_their_way = OnTheirWay::default();
        let reply = self.send(sql, expected).await.map(Box::pin);
        on_their_way.0.borrow_mut().push_back(reply);
        let mut sent = pin!(send_data(data.unwrap_or_default(), sender));
        let mut response = pin!(on_their_way.receive(received, received.count() + 1));
        let mut is_sent = false;
        poll_fn(|cx| {
            is_sent = is_sent || sent.as_mut().poll(cx).is_ready();
            response.as_mut().poll(cx)
        })
        .await
    }
}

/// Sends the data until it ends, or the server wants no more.
async fn send_data(data: &str, sender: mpsc::Sender<CopyData>) {
    for part in data.as_bytes().chunks(COPY_PART) {
        if sender.send(CopyData::Part(part.to_vec())).await.is_err() {
            return;
        }
    }
    let _ = sender.send(CopyData::End).await;
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.try_get(at).ok()?.map(str::to_owned)).collect()
}

/// Responses, in the order of the messages. The last may be incomplete.
#[derive(Default)]
pub(super) struct ReceivedReplies {
    responses: RefCell<Vec<Response>>,
    complete: Cell<usize>,
}

impl ReceivedReplies {
    /// How many are complete.
    pub(super) fn count(&self) -> usize {
        self.complete.get()
    }

    pub(super) fn responses(&self) -> Ref<'_, Vec<Response>> {
        self.responses.borrow()
    }

    pub(super) fn take(&self) -> Vec<Response> {
        self.responses.take()
    }

    /// Begins the next response, unless it is begun.
    fn begin(&self) {
        let mut responses = self.responses.borrow_mut();
        if responses.len() == self.count() {
            responses.push(Response::default());
        }
    }

    fn end(&self) {
        self.complete.set(self.count() + 1);
    }

    fn last_failed(&self) -> bool {
        self.responses().last().is_some_and(|response| response.error.is_some())
    }

    /// Adds a part of a reply to the last response.
    fn add(&self, message: Result<SimpleQueryMessage, Error>) -> Result<(), Error> {
        let mut responses = self.responses.borrow_mut();
        let Some(response) = responses.last_mut() else { return Ok(()) };
        match message {
            Ok(SimpleQueryMessage::CommandComplete(_)) => response.completed += 1,
            Ok(SimpleQueryMessage::Row(row)) => response.row = Some(values(&row)),
            Ok(_) => {}
            Err(error) => match error.as_db_error() {
                Some(error) => response.error = Some(ServerError::from(error)),
                None => return Err(error),
            },
        }
        Ok(())
    }
}

/// The messages that are on their way: those whose replies have not come in full, in their order.
#[derive(Default)]
pub(super) struct OnTheirWay(RefCell<VecDeque<ReplyStream>>);

/// `Err` where the message could not be sent.
type ReplyStream = Result<Pin<Box<SimpleQueryStream>>, Error>;

impl OnTheirWay {
    pub(super) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Receives until so many responses are complete. Where it is not awaited to its end, another call
    /// goes on from there.
    pub(super) async fn receive(
        &self,
        received: &ReceivedReplies,
        count: usize,
    ) -> Result<(), Error> {
        while received.count() < count {
            received.begin();
            while let Some(message) = poll_fn(|cx| self.poll_message(cx)).await {
                received.add(message)?;
            }
            self.0.borrow_mut().pop_front();
            received.end();
        }
        Ok(())
    }

    /// The next part of the first reply; `None` at its end.
    fn poll_message(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<SimpleQueryMessage, Error>>> {
        let mut replies = self.0.borrow_mut();
        match replies.front_mut() {
            Some(Ok(reply)) => reply.as_mut().poll_next(cx),
            Some(Err(_)) => Poll::Ready(replies.pop_front().and_then(Result::err).map(Err)),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_postgres::config::SslMode;
    use tokio_postgres::{Config, NoTls};

    use super::super::relay::Relay;
    use super::*;

    const LONG: usize = 1 << 20;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    async fn read_message(server: &mut DuplexStream) {
        let length = server.read_u32().await.unwrap() as usize;
        server.read_exact(&mut vec![0; length - 4]).await.unwrap();
    }

    /// Lets a client in, and answers its queries, the first with as many rows as are longer than what
    /// is on the way in between, before it reads more than the beginning of that query.
    async fn serve(mut server: DuplexStream, queries: usize) {
        let ready = frame(b'Z', b"I");
        read_message(&mut server).await;
        server.write_all(&[frame(b'R', &[0; 4]), ready.clone()].concat()).await.unwrap();
        for number in 0..queries {
            assert_eq!(server.read_u8().await.unwrap(), b'Q');
            if number == 0 {
                let rows = frame(b'D', &[0; 2]).repeat(LONG / 7);
                server.write_all(&[frame(b'T', &[0; 2]), rows].concat()).await.unwrap();
            }
            read_message(&mut server).await;
            server.write_all(&[frame(b'C', b"SELECT\0"), ready.clone()].concat()).await.unwrap();
        }
    }

    #[test]
    fn replies_are_read_while_messages_are_written() {
        let run = async {
            // Holds far less than each side sends before it reads.
            let (ours, server) = duplex(1024);
            tokio::spawn(serve(server, 3));
            let awaited = Awaited::default();
            let mut config = Config::new();
            config.user("u").ssl_mode(SslMode::Disable);
            let relay = Relay::new(ours, awaited.clone(), false);
            let (client, connection) = config.connect_raw(relay, NoTls).await.unwrap();
            tokio::spawn(connection);
            let sender = Sender::new(client, awaited);
            let sql = "-".repeat(LONG);
            let (sent, received) = (OnTheirWay::default(), ReceivedReplies::default());
            sender.send_all(&[Message::from(sql.as_str()); 3], &sent).await;
            assert_eq!(sent.count(), 3);
            sent.receive(&received, 3).await.unwrap();
            received.take().iter().map(|response| response.completed).collect::<Vec<_>>()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let limit = std::time::Duration::from_secs(30);
        let completed = runtime.block_on(async { tokio::time::timeout(limit, run).await });
        assert_eq!(completed.unwrap(), [1, 1, 1]);
    }
}
