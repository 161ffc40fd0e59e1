//! The task that opens a stream, takes its answers, and looks after its deadlines.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Stream, future::Either, future::select};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery};

use super::{
    calls::{Aftermath, CallId},
    line::{End, Line},
    wire::{self, Answer, AsIs, Message},
};

const PATH: &str = "/holdfast.v1.PipelineService/Pipeline";

/// A stream to come. When it is dropped, its calls are told so.
pub(super) struct Driver {
    line: Arc<Line>,
    stream: u64,
    end: Option<End>,
}

impl Driver {
    pub(super) fn new(line: Arc<Line>, stream: u64) -> Self {
        Self { line, stream, end: None }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let end = self.end.take();
        // Else the runtime has dropped the task.
        let end = end.unwrap_or_else(|| End::Broken(Status::unavailable("the runtime has ended")));
        self.line.end(end);
    }
}

/// Opens a stream and goes on until it is no more.
pub(super) async fn drive(mut driver: Driver) {
    let checks = pin!(run_checks(&driver.line));
    let answers = pin!(take_answers(&driver.line, driver.stream));
    let end = match select(answers, checks).await {
        Either::Left((Err(end), _)) | Either::Right((Err(end), _)) => end,
        Either::Left((Ok(never), _)) | Either::Right((Ok(never), _)) => match never {},
    };
    driver.end = Some(end);
}

async fn take_answers(line: &Arc<Line>, stream: u64) -> Result<Infallible, End> {
    let mut answers = open(line, stream).await.map_err(End::Unopened)?;
    line.opened();
    let (mut found, mut after) = (Vec::new(), Aftermath::default());
    loop {
        let message = answers.message().await.map_err(End::Broken)?;
        let ended = || End::Broken(Status::unavailable("the server has ended the stream"));
        hand_out(line, &message.ok_or_else(ended)?, &mut found, &mut after)?;
    }
}

async fn open(line: &Arc<Line>, stream: u64) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::new(line.lane.clone()).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let messages = Messages { line: Arc::clone(line), stream, yields: 0 };
    let path = PathAndQuery::from_static(PATH);
    let accepted = grpc.streaming(Request::new(messages), path, AsIs).await?;
    // Else something on the way has answered in its own tongue.
    let content_type = accepted.metadata().get("content-type").map(|it| it.as_bytes());
    if !content_type.is_some_and(|it| it.starts_with(b"application/grpc")) {
        return Err(Status::unknown("what accepted the stream does not speak gRPC"));
    }
    Ok(accepted.into_inner())
}

/// Hands out the answers of a message. They are all found before the line is locked, for callers wait for it.
fn hand_out(
    line: &Line,
    message: &Bytes,
    found: &mut Vec<(CallId, Answer)>,
    after: &mut Aftermath,
) -> Result<(), End> {
    let mut bad = None;
    for answer in wire::answers(message) {
        match answer {
            Ok((id, range)) => found.push((CallId(id), Answer::new(message, range))),
            Err(error) => bad = Some(error),
        }
    }
    line.answer(found.drain(..), after);
    line.conclude(after);
    match bad {
        None => Ok(()),
        Some(error) => Err(End::Broken(Status::internal(format!("a bad message: {error}")))),
    }
}

/// Looks after deadlines, until the stream is to end.
async fn run_checks(line: &Line) -> Result<Infallible, End> {
    let mut sleep: Option<Pin<Box<Sleep>>> = None;
    loop {
        poll_fn(|context| poll_check(line, &mut sleep, context)).await?;
        line.check(Instant::now())?;
    }
}

/// Ready when it is time for a check.
fn poll_check(
    line: &Line,
    sleep: &mut Option<Pin<Box<Sleep>>>,
    context: &mut Context<'_>,
) -> Poll<Result<(), End>> {
    let Some(next) = line.next_check(context)? else {
        return Poll::Pending;
    };
    let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(next)));
    if sleep.deadline() != next {
        sleep.as_mut().reset(next);
    }
    ready!(sleep.as_mut().poll(context));
    Poll::Ready(Ok(()))
}

/// What a stream sends.
struct Messages {
    line: Arc<Line>,
    stream: u64,
    yields: u32,
}

impl Stream for Messages {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let Self { line, stream, yields } = &mut *self;
        line.poll_message(*stream, yields, context)
    }
}
