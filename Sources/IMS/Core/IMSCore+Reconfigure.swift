import MATCore
import MATSignal

// Another configuration while everything goes on.

extension IMSCore {
    /// Takes a new configuration, from the next event on: prefixes, keys, rates, bounds and quotas. What is held stays held, also beyond
    /// a smaller bound; it is served as long as a served prefix covers it.
    public mutating func reconfigure(_ fresh: IMSCoreConfiguration) {
        let (old, new) = (configuration.limits, fresh.limits)
        let servedBefore = configuration.served
        configuration = fresh
        // Rates that did not change keep what was taken from them.
        let isOtherTable = old.ratesMax != new.ratesMax
        if isOtherTable || old.updatesPerSecond != new.updatesPerSecond {
            updateRates = RateTable(perSecond: new.updatesPerSecond, keysMax: new.ratesMax)
        }
        if isOtherTable || old.notifiesPerSecond != new.notifiesPerSecond {
            notifySourceRates = RateTable(perSecond: new.notifiesPerSecond, keysMax: new.ratesMax)
            notifyPeerRates = RateTable(perSecond: new.notifiesPerSecond, keysMax: new.ratesMax)
        }
        if isOtherTable || old.queriesPerSecond != new.queriesPerSecond {
            queryRates = RateTable(perSecond: new.queriesPerSecond, keysMax: new.ratesMax)
        }
        if isOtherTable || old.verificationsPerSecond != new.verificationsPerSecond {
            verificationRates = RateTable(perSecond: new.verificationsPerSecond, keysMax: new.ratesMax)
        }
        if old.strangerVerificationsPerSecond != new.strangerVerificationsPerSecond {
            strangerVerifications = RateLimit(perSecond: new.strangerVerificationsPerSecond)
        }
        if old.inquiriesPerSecond != new.inquiriesPerSecond { inquiryRate = RateLimit(perSecond: new.inquiriesPerSecond) }
        if old.errorAnswersPerSecond != new.errorAnswersPerSecond { errorAnswers = RateLimit(perSecond: new.errorAnswersPerSecond) }
        if old.draftAnswersPerSecond != new.draftAnswersPerSecond { draftAnswers = RateLimit(perSecond: new.draftAnswersPerSecond) }
        if old.refusalLogsPerSecond != new.refusalLogsPerSecond { refusalLogs = RateLimit(perSecond: new.refusalLogsPerSecond) }
        if old.bindingLogsPerSecond != new.bindingLogsPerSecond { bindingLogs = BindingLogs(perSecond: new.bindingLogsPerSecond) }
        remembered.setBound(new.rememberedMax)
        subscriptions.setBounds(perSourceMax: new.subscriptionsPerSourceMax, totalMax: new.subscriptionsMax)
        if servedBefore != fresh.served { recountQuotas() }
    }
}
