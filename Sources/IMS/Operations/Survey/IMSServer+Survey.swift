import IMSCore
import MATRuntime

// When the core's walks through all that is held take place.

extension IMSServer {
    /// After the start, when most of what is held has been read.
    static let surveyFirst: Duration = .seconds(5)
    /// From the end of one walk to the beginning of the next.
    static let surveyInterval: Duration = .seconds(60)
    /// Between steps, so that a walk through millions leaves room for everything else.
    static let surveyPause: Duration = .milliseconds(20)

    func surveyLater(after delay: Duration) {
        loop.schedule(after: delay) { [weak self] in
            guard let self else { return }
            var goesOn = false
            run { core, now in
                let step = core.survey(now: now)
                goesOn = step.goesOn
                return step.actions
            }
            surveyLater(after: goesOn ? Self.surveyPause : Self.surveyInterval)
        }
    }
}
