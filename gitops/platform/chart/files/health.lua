-- How Argo CD tells the health of an object of Hansa, of any kind: by what the operator says of it, and only while that is about the
-- present spec. Without a status nobody has looked yet, and that is not healthy.
local health = { status = "Progressing", message = "Waiting for the operator" }
local status = obj.status or {}
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = "spec.suspend is true" }
end
if status.observedGeneration == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end
local ready, reconciling, stalled = conditions.Ready, conditions.Reconciling, conditions.Stalled
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message or stalled.reason or "Stalled" }
end
if reconciling ~= nil and reconciling.status == "True" then
  health.message = reconciling.message or reconciling.reason or "Reconciling"
  return health
end
if ready ~= nil then
  health.message = ready.message or ready.reason or ""
  if ready.status == "True" then
    health.status = "Healthy"
  elseif ready.status == "False" then
    health.status = "Degraded"
  end
end
return health
