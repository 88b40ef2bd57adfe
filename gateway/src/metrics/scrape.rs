//! One scrape: a question to the slow path, as the admin socket asks them.

use jumpgate_metrics::Scraped;
use tokio::sync::{mpsc, oneshot};

use crate::admin::{Answer, Pending, Question};

/// Asks for a page.
pub async fn scrape(questions: mpsc::Sender<Pending>) -> Scraped {
    let (answer, answered) = oneshot::channel();
    let asked = questions.send(Pending { question: Question::Metrics, answer }).await;
    match (asked, answered.await) {
        (Ok(()), Ok(Answer::Metrics(page))) => Scraped::Page(page),
        (Ok(()), Ok(_)) => Scraped::Unavailable("the gateway is overloaded"),
        _ => Scraped::Unavailable("the gateway is stopping"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_that_cannot_answer_says_why() {
        for (answer, expected) in [
            (Some(Answer::Metrics("page".to_owned())), Scraped::Page("page".to_owned())),
            (Some(Answer::Error("late".to_owned())), Scraped::Unavailable("the gateway is overloaded")),
            (None, Scraped::Unavailable("the gateway is stopping")),
        ] {
            let (sender, mut questions) = mpsc::channel::<Pending>(1);
            let gateway = tokio::spawn(async move {
                let pending = questions.recv().await;
                if let (Some(pending), Some(answer)) = (pending, answer) {
                    let _ = pending.answer.send(answer);
                }
            });
            assert_eq!(scrape(sender).await, expected);
            gateway.await.expect("asked");
        }
    }
}
