"""Each execution as a durable function of Resonate's, the same for all stores.

runner     runs a session's executions: recorded, submitted, settled
bridge     between durable functions, which await promises, and the session, which settles them
engine     one session's Resonate instance
function   the durable function itself
ids        promise ids and correlation keys
"""
