-- Argo CD itself no longer tells the health of an Application; without it a wave of Applications does not wait for the one before.
local status = obj.status or {}
if status.health == nil or status.health.status == nil then
  return { status = "Progressing", message = "Waiting for a first look" }
end
return { status = status.health.status, message = status.health.message or "" }
