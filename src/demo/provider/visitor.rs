//! A person at a browser, as far as the demo needs one: opens a gateway's page for a waiting login, types the code,
//! signs in here, and approves or denies. It does what a person's browser would do, over HTTP, and nothing else: the
//! gateway has no door for it.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, redirect};
use url::Url;

/// One answer of the page may take this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the form's token, in the page.
const TOKEN: &str = "name=\"token\" value=\"";

/// What the visitor says at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Yes.
    Approve,
    /// No.
    Deny,
}

/// Visits the page as somebody, with the code. Words for a person say why it did not come to an end.
pub(super) async fn visit(link: &str, code: &str, who: &str, word: Word) -> Result<(), String> {
    let page = Url::parse(link).map_err(|_| format!("{link} is not an address"))?;
    let http = Client::builder().timeout(ANSWER_TIMEOUT).redirect(redirect::Policy::none()).no_proxy();
    let http = http.build().map_err(|error| error.to_string())?;
    let mut browser = Browser { http, cookies: BTreeMap::new() };

    let taken = browser.post(page.clone(), &[("code", code)]).await?;
    expect(&taken, StatusCode::OK, "the page did not take the code")?;
    let sign_in = browser.get(below(&page, "sign-in")?).await?;
    let at_provider = led_to(&page, &sign_in)?;
    let mut form: Vec<(String, String)> = at_provider.query_pairs().into_owned().collect();
    form.push(("user".to_owned(), who.to_owned()));
    let mut authorize = at_provider;
    authorize.set_query(None);
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let back = browser.post(authorize.clone(), &form).await?;
    let back = browser.get(led_to(&authorize, &back)?).await?;
    led_to(&page, &back)?;
    let asked = browser.get(page.clone()).await?;
    expect(&asked, StatusCode::OK, "the page did not ask for an answer")?;
    let asked = asked.text().await.map_err(|error| error.to_string())?;
    let (_, rest) = asked.split_once(TOKEN).ok_or("the page did not ask for an answer")?;
    let token = rest.split('"').next().unwrap_or_default();
    let answer = match word {
        Word::Approve => "approve",
        Word::Deny => "deny",
    };
    let done = browser.post(below(&page, "answer")?, &[("token", token), ("answer", answer)]).await?;
    expect(&done, StatusCode::SEE_OTHER, "the page did not take the answer")
}

struct Browser {
    http: Client,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    async fn get(&mut self, url: Url) -> Result<Response, String> {
        let request = self.http.get(url).header("sec-fetch-site", "same-origin");
        self.send(request).await
    }

    async fn post(&mut self, url: Url, form: &[(&str, &str)]) -> Result<Response, String> {
        let request = self.http.post(url).header("sec-fetch-site", "same-origin").form(form);
        self.send(request).await
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Result<Response, String> {
        let line: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header(COOKIE, line.join("; ")).send().await;
        let answer = answer.map_err(|_| "the gateway's page could not be reached".to_owned())?;
        for line in answer.headers().get_all(SET_COOKIE).iter().filter_map(|line| line.to_str().ok()) {
            if let Some((name, value)) = line.split(';').next().and_then(|pair| pair.split_once('=')) {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }
}

fn below(page: &Url, word: &str) -> Result<Url, String> {
    let mut url = page.clone();
    url.path_segments_mut().map_err(|()| "the link is not one of a page".to_owned())?.push(word);
    Ok(url)
}

fn led_to(from: &Url, answer: &Response) -> Result<Url, String> {
    let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
    let place = place.ok_or_else(|| format!("{} did not lead on: {}", from.path(), answer.status()))?;
    from.join(place).map_err(|_| "the page led nowhere".to_owned())
}

fn expect(answer: &Response, status: StatusCode, otherwise: &str) -> Result<(), String> {
    if answer.status() == status { Ok(()) } else { Err(format!("{otherwise}: {}", answer.status())) }
}
